//! `notifyx up` and `notifyx <service>`: from settings to a running process and back.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use notifyx_chassis::telemetry;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Entry, Global, OneService, Placement},
    cluster,
    exit::Failure,
    platform::{Platform, reachable},
    service::Service,
    settings::{Loaded, Settings},
    signals,
    user::{
        client::DEFAULT_SERVER,
        print::{self, Output, Style},
    },
};

/// What outlives the services (a blocking call, a log line) may take this long.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Every service in this process.
pub(crate) fn up(placement: &Placement, entry: Entry, global: &Global) -> Result<(), Failure> {
    let mut settings = Loaded::up(placement, entry).map_err(|refused| Failure::Usage(refused.to_string()))?.settings;
    for service in Service::ALL {
        advertise_loopback(service, &mut settings).map_err(Failure::machine("cannot find a free port"))?;
    }
    // A registry and a secret of its own: nothing outside this process is needed.
    let secret = match (settings.cluster.secret.set(), settings.gateway.database.folder()) {
        (Some(secret), _) => secret.clone(),
        (None, Some(folder)) => cluster::kept_secret(folder)?,
        (None, None) => cluster::random_secret(),
    };
    let platform = Platform::new(secret, Vec::new());
    serve(&Service::ALL, &settings, platform, global)
}

/// One service, as a part of a platform of several processes.
pub(crate) fn one(service: Service, args: &OneService, entry: Entry, global: &Global) -> Result<(), Failure> {
    let mut settings =
        Loaded::one(service, args, entry).map_err(|refused| Failure::Usage(refused.to_string()))?.settings;
    if is_everywhere(service, &mut settings) && service != Service::Discovery {
        let (name, variable) = (service.name(), service.name().replace('-', "_").to_uppercase());
        return Err(Failure::Usage(format!(
            "{name} listens on every network: say by which address the other services reach it, \
             NOTIFYX_{variable}__ADVERTISE=host:port or `advertise` under [{name}]"
        )));
    }
    let secret = settings.cluster.secret.set().cloned().ok_or_else(|| {
        Failure::Usage(format!(
            "{} needs the secret of its cluster: set NOTIFYX_CLUSTER__SECRET, or `secret` under [cluster] in a --config file",
            service.name()
        ))
    })?;
    let discovery: Vec<_> = settings.cluster.discovery.iter().map(ToString::to_string).collect();
    if discovery.is_empty() && service != Service::Discovery {
        return Err(Failure::Usage(format!(
            "{} must know where the registry is: --discovery, NOTIFYX_CLUSTER__DISCOVERY, or `discovery` under [cluster]",
            service.name()
        )));
    }
    serve(&[service], &settings, Platform::new(secret, discovery), global)
}

/// It listens on `0.0.0.0` or `[::]`, which nobody can call, and names no address that can be called.
fn is_everywhere(service: Service, settings: &mut Settings) -> bool {
    service.listen(settings).ip().is_unspecified() && service.advertise(settings).is_empty()
}

/// Within one process loopback reaches also a door that is open to every network. The registry must be told a port, so one
/// that the system is to choose is chosen here; another program could take it before the door opens, and the start fails.
fn advertise_loopback(service: Service, settings: &mut Settings) -> std::io::Result<()> {
    if is_everywhere(service, settings) {
        let listen = service.listen(settings);
        if listen.port() == 0 {
            listen.set_port(TcpListener::bind(*listen)?.local_addr()?.port());
        }
        let reached = reachable(*listen);
        *service.advertise(settings) = reached.to_string();
    }
    Ok(())
}

fn serve(services: &[Service], settings: &Settings, platform: Platform, global: &Global) -> Result<(), Failure> {
    telemetry::start(settings.telemetry.log.as_str(), settings.telemetry.format).map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::machine("cannot start the runtime"))?;
    let output = Output::new(global.json, global.no_color);
    let ended = runtime.block_on(async {
        let asked = signals::asked_to_stop().map_err(Failure::machine("cannot listen for signals"))?;
        let mut platform = platform;
        let ended = run(services, settings, &mut platform, output, &asked).await;
        // Also after a failure: what was started is stopped in order.
        platform.stop().await;
        ended
    });
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    ended
}

/// Starts, says so, and waits to be asked to stop.
async fn run(
    services: &[Service],
    settings: &Settings,
    platform: &mut Platform,
    output: Output,
    asked: &CancellationToken,
) -> Result<(), Failure> {
    let starting = async {
        for service in services {
            platform.start(*service, settings).await?;
        }
        match services {
            // Its neighbours are started by others, in any order: it waits for them.
            [_] => platform.ready_some_day().await,
            _ => platform.ready().await,
        }
    };
    if unless_asked(asked, starting).await?.is_none() {
        return Ok(());
    }
    let doors: Vec<_> = platform.addresses().collect();
    announce(output, &doors, settings)?;
    asked.cancelled().await;
    tracing::info!("asked to stop: finishing what runs (a second signal ends at once)");
    Ok(())
}

/// The outcome of `work`, or `None` where the process was asked to stop first.
async fn unless_asked<T>(
    asked: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<Option<T>, Failure> {
    tokio::select! {
        done = work => done.map(Some),
        () = asked.cancelled() => Ok(None),
    }
}

fn announce(output: Output, doors: &[(&str, SocketAddr)], settings: &Settings) -> Result<(), Failure> {
    for (name, address) in doors.iter().filter(|(_, address)| !address.ip().is_loopback()) {
        tracing::warn!(
            "{name} listens on {address}, beyond this machine, without encryption: put a TLS proxy before it, or a private network around it"
        );
    }
    if output.json() {
        let mut record = Map::from_iter([("event".to_owned(), json!("ready"))]);
        record.extend(
            doors.iter().map(|(name, address)| ((*name).to_owned(), Value::String(reachable(*address).to_string()))),
        );
        return print::record(&record);
    }
    for (name, address) in doors {
        print::line(&format!(
            "  {name:<12} {}",
            output.paint(Style::Strong, format!("http://{}", reachable(*address)))
        ))?;
    }
    match doors.iter().find(|(name, _)| *name == Service::Gateway.name()) {
        Some((_, gateway)) if doors.len() > 1 => print::line(&tour(output, reachable(*gateway), settings)),
        _ => print::line("Ready. Ctrl-C stops it."),
    }
}

/// What a newcomer types next, in another terminal.
fn tour(output: Output, gateway: SocketAddr, settings: &Settings) -> String {
    let at = format!("http://{gateway}");
    let told = if at == DEFAULT_SERVER { String::new() } else { format!("  export NOTIFYX_SERVER={at}\n") };
    format!(
        "\n  {}  {at}/docs\n  {}  ws://{gateway}/socket  (Phoenix channels; the official client's endpoint)\n  {}  {}\n\n\
         Try it, in another terminal:\n{told}  \
         notifyx register ann@example.org\n  \
         notifyx login ann@example.org\n  \
         notifyx subscribe billing              # until Ctrl-C; publish from one more terminal\n  \
         notifyx publish billing 'The invoices are out'\n\n\
         Ready. Ctrl-C stops it.",
        output.paint(Style::Faint, "API        "),
        output.paint(Style::Faint, "sockets    "),
        output.paint(Style::Faint, "data       "),
        settings.persist.database,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_to_every_network_is_registered_where_this_process_reaches_it() {
        let placement = Placement { listen: Some([0, 0, 0, 0].into()), port: Some(0), ..Placement::default() };
        let mut settings = Loaded::up(&placement, Entry::default()).unwrap().settings;
        for service in Service::ALL {
            advertise_loopback(service, &mut settings).unwrap();
        }
        let port = settings.gateway.listen.port();
        assert_ne!(port, 0);
        assert_eq!(settings.gateway.advertise, format!("127.0.0.1:{port}"));
        assert_eq!(settings.auth.advertise, "", "a door on loopback is registered where it is");
    }

    #[test]
    fn one_service_on_every_network_must_say_how_it_is_reached() {
        let placement = Placement { listen: Some([0, 0, 0, 0].into()), ..Placement::default() };
        let global = Global { no_color: true, ..Global::default() };
        let refused =
            one(Service::Counter2pc, &OneService { placement, discovery: Vec::new() }, Entry::default(), &global)
                .unwrap_err();
        assert!(refused.to_string().contains("NOTIFYX_COUNTER_2PC__ADVERTISE=host:port"), "{refused}");
    }
}
