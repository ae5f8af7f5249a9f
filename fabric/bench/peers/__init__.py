"""What takes part beside the fabric: one module for each library, with its contestants, senders and receivers."""
