"""Feed handlers, pricing, risk: the market side of the fabric. Imports fabric and native, never sideways."""
