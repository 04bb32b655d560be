//! What the figures were measured on, and what this process may use of it.

use std::{fmt, fs};

use notifyx_model::Clock;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};
use serde::Serialize;

use crate::error::Error;

/// Descriptors besides the sockets: files, pipes, publishers.
const FILES_BESIDE: u64 = 600;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) at: String,
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) kernel: String,
    /// The server was held to core 0 and the client to core 1.
    pub(crate) pinned: bool,
}

impl Machine {
    pub(crate) fn here(pinned: bool) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            at: Clock::system().now().to_string(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            processor: processor.map_or("unknown", |(_, name)| name).to_owned(),
            kernel: kernel.trim().to_owned(),
            pinned,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, cores, processor, kernel, pinned } = self;
        let pinned = if *pinned { "; server on core 0, client on core 1" } else { "" };
        write!(f, "{at}, {cores} cores ({processor}), Linux {kernel}{pinned}")
    }
}

/// Raises the limit of open files to what `sockets` at each of `targets` need; a process started afterwards inherits it.
pub(crate) fn allow_files(sockets: u64, targets: u64) -> Result<(), Error> {
    let need = sockets * targets + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|&hard| hard < need) {
        return Err(Error::failed(format!(
            "{sockets} sockets at each of {targets} servers need {need} open files, and the hard limit is {hard}: raise it \
             (`ulimit -Hn {need}` as root, or LimitNOFILE=) or ask for fewer --sockets"
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum: limit.maximum }).map_err(|errno| Error::Io {
        doing: format!("raising the limit of open files to {need}"),
        source: errno.into(),
    })
}

/// Holds this thread, and those it starts from now on, to one core.
pub(crate) fn pin_to(core: usize) -> Result<(), Error> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
        .map_err(|errno| Error::Io { doing: format!("pinning the client to core {core}"), source: errno.into() })
}
