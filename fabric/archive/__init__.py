"""The archive: a process that follows channels, keeps them beyond their publishers' retention, and answers for them."""
