"""The reference libraries, traker and kronfluence, sharded over the same pool."""
