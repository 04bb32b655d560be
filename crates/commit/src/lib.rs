//! notifyx-commit
