//! Many small calls become one: callers submit items, a handler gets them in batches, each caller gets its own result.
//!
//! Batching is natural: a batch leaves when one that is under way ends (at once where none is), with whatever has
//! gathered meanwhile. There is no linger: a fixed one of a millisecond costs two thirds of the throughput. What a
//! batch does, and what is done about an item that fails, is the handler's business.

mod batcher;
mod error;

pub use batcher::{Batcher, Options};
pub use error::Rejected;
