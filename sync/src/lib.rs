//! Process-shared locks.
