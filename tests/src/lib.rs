//! Checks with real processes.
