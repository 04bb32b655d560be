//! The words every room uses: ids, names, messages, the clock, the kinds of error.
//!
//! No I/O lives here. What is parsed into one of these types is valid and is trusted afterwards.

mod clock;
mod given;
mod id;
mod kind;
mod message;
mod name;
mod scalar;
mod scope;
mod span;
mod token;

pub use clock::{Clock, ManualClock, Timestamp};
pub use given::GivenTime;
pub use id::{Gid, InstanceId, KeyId, NotificationId, TopicId, UserId, first_id_at};
pub use kind::{Fault, Kind};
pub use message::{Message, Notification, Priority, RECIPIENTS_MAX};
pub use name::{Category, Email, EventId, Invalid, KeyName, OperatorName, Remark, ServiceName, TopicName};
pub use scope::{OutOfScope, Scope, Scopes, Verb};
pub use span::GivenSpan;
pub use token::{Secret, Token, TokenHash};
