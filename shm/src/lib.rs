//! Shared-memory segments.
