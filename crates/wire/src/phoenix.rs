//! Phoenix channel frames.
