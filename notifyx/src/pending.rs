//! Stands in for services whose crates are not there yet.

#[allow(unreachable_pub, reason = "temporary")]
macro_rules! pending {
    ($($name:ident, $text:literal);+) => {$(
        pub mod $name {
            use std::net::SocketAddr;
            use notifyx_chassis::{Context, Running, StartError};
            use notifyx_database::DatabaseUrl;
            #[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
            #[serde(deny_unknown_fields)]
            pub struct Config { pub listen: SocketAddr, pub database: DatabaseUrl }
            pub const DEFAULTS: &str = $text;
            impl Default for Config { fn default() -> Self { notifyx_chassis::config::defaults(DEFAULTS) } }
            pub async fn start(_: Config, _: Context) -> Result<Running, StartError> { Err(StartError::Other("not there yet".into())) }
        }
    )+};
}

pending! {
    notifyx_gateway, "# Door.\nlisten = \"127.0.0.1:4000\"\ndatabase = \"sqlite:data/gateway.db\"\n";
    notifyx_persist, "listen = \"127.0.0.1:6000\"\ndatabase = \"sqlite:data/persist.db\"\n";
    notifyx_counter_2pc, "listen = \"127.0.0.1:2000\"\ndatabase = \"sqlite:data/counter-2pc.db\"\n";
    notifyx_discovery, "listen = \"127.0.0.1:8000\"\ndatabase = \"sqlite:data/discovery.db\"\n"
}
