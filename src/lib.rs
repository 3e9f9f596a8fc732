//! Processes, queues and locks in shared memory.
