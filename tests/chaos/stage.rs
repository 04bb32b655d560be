//! What a run happens on: a platform in one of its two forms, whose members are handed over to the storm.

use std::time::Duration;

use futures_util::future::join_all;
use notifyx_database::testing::Server;
use reqwest::Method;
use tokio::time::{Instant, sleep};

use crate::{
    books::Books,
    harness::{Api, Form, Options, Platform, Timing, fixed_port, try_send},
    member::Member,
    storm::Storm,
};

/// For what takes a moment on an idle machine.
pub(crate) const MOMENT: Duration = Duration::from_secs(120);

pub(crate) struct Stage {
    pub(crate) form: Form,
    pub(crate) gateways: Vec<String>,
    pub(crate) books: Books,
    pub(crate) anonymous: Api,
    pub(crate) storm: Storm,
    /// What is not struck, and the folder of what is.
    #[expect(dead_code, reason = "it is kept for what its end ends")]
    platform: Platform,
}

impl Stage {
    /// `processes`: of [`Form::Separate`], of which the first two, discovery and auth, are not struck. `variables`: of every process.
    pub(crate) async fn set(
        form: Form,
        seed: u64,
        processes: &'static [&'static str],
        variables: &[(&'static str, &'static str)],
    ) -> Self {
        let server = (form == Form::Separate).then(|| Server::start_at(fixed_port()));
        let options = Options {
            processes: if form == Form::Separate { processes } else { &["up"] },
            server: server.as_ref().map(|server| server.base.clone()),
            timing: Timing::Protocol,
            variables: variables.to_vec(),
            ..Options::default()
        };
        let mut platform = Platform::start_with(form, options).await;
        let gateways = platform.instances("gateway").into_iter().map(str::to_owned).collect();
        let (victims, books, folder) = match form {
            Form::Separate => (&processes[2..], Books::of_postgres(&platform), None),
            Form::Up => (&["up"][..], Books::Sqlite(platform.folder()), Some(platform.folder())),
        };
        let anonymous = platform.anonymous();
        let members = victims.iter().map(|name| {
            let command = platform.command(name);
            Member::process(platform.hand_over(name), command, folder.clone())
        });
        let members: Vec<Member> = members.collect();
        let storm = Storm::new(seed, members.into_iter().chain(server.map(Member::postgres)));
        Self { form, gateways, books, anonymous, storm, platform }
    }

    /// Everything is reachable again, as far as the gateways can see.
    pub(crate) async fn healed(&self) {
        until(MOMENT, "every gateway is ready", async || {
            let ready = self.gateways.iter().map(|gateway| async move {
                let request = Api::new(gateway).request(Method::GET, "/ready").timeout(MOMENT / 10);
                try_send(request).await.is_ok_and(|answer| answer.status == 200)
            });
            join_all(ready).await.into_iter().all(|ready| ready)
        })
        .await;
    }

    pub(crate) async fn all_is_closed(&self, by: Instant) {
        let mut open = self.books.open().await;
        while open > 0 {
            assert!(Instant::now() < by, "{open} transactions are open, long after everything was healed");
            sleep(Duration::from_millis(100)).await;
            open = self.books.open().await;
        }
    }
}

/// Waits for something, at most so long.
pub(crate) async fn until(within: Duration, what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        // A pause between looks, not a wait for something known to take this long.
        sleep(Duration::from_millis(25)).await;
    }
}
