"""The wing that lives in the collector: the ledger, delivery and adoption."""
