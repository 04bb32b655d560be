//! The platform's own tables, made by its own migrations: the yardsticks write the same rows under the same indexes.

use std::borrow::Cow;

use notifyx_database::Migrations;
use sqlx::migrate::Migrator;

pub(super) static PERSIST: Migrations = Migrations {
    sqlite: sqlx::migrate!("../persist/migrations/sqlite"),
    postgres: sqlx::migrate!("../persist/migrations/postgres"),
};
pub(super) static COUNTER: Migrations = Migrations {
    sqlite: sqlx::migrate!("../counter-2pc/migrations/sqlite"),
    postgres: sqlx::migrate!("../counter-2pc/migrations/postgres"),
};
pub(super) static GATEWAY: Migrations = Migrations {
    sqlite: sqlx::migrate!("../gateway/migrations/sqlite"),
    postgres: sqlx::migrate!("../gateway/migrations/postgres"),
};

/// A database without tables.
pub(super) const EMPTY: Migrations = Migrations {
    sqlite: Migrator { migrations: Cow::Borrowed(&[]), ..Migrator::DEFAULT },
    postgres: Migrator { migrations: Cow::Borrowed(&[]), ..Migrator::DEFAULT },
};

/// Makes the tables of all three services in one database. A local transaction prepares nothing: of both participants' tables
/// of what is prepared, which have one name, none remains.
pub(super) fn all(of: impl Fn(&'static Migrations) -> &'static Migrator) -> String {
    let mut statements = String::new();
    for (service, participant) in [(&PERSIST, true), (&COUNTER, true), (&GATEWAY, false)] {
        for migration in of(service).iter() {
            statements.push_str(&migration.sql);
            statements.push_str(";\n");
        }
        if participant {
            statements.push_str("DROP TABLE ptxn;\n");
        }
    }
    statements
}
