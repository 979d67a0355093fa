//! A TPM 2.0: quotes, sealing, monotonic counters.
