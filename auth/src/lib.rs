//! Accounts, sessions and the log of revocations.

mod store;
