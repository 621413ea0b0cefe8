//! PIN tries.
