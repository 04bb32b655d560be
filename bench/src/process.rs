//! What a process has used, read from `/proc`.

use std::{fs, str::FromStr};

use rustix::param::clock_ticks_per_second;

use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) const fn of(pid: u32) -> Self {
        Self(pid)
    }

    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    /// Seconds of CPU since it started, user and system, all threads; in steps of a clock tick (10 ms).
    pub(crate) fn cpu_s(self) -> Result<f64, Error> {
        let stat = self.read("stat")?;
        let ticks = ticks(&stat).ok_or_else(|| Error::failed(format!("/proc/{}/stat has another form", self.0)))?;
        Ok(ticks as f64 / clock_ticks_per_second() as f64)
    }

    /// Resident memory in bytes.
    pub(crate) fn rss_bytes(self) -> Result<u64, Error> {
        let status = self.read("status")?;
        resident(&status).ok_or_else(|| Error::failed(format!("/proc/{}/status has no VmRSS", self.0)))
    }

    fn read(self, file: &str) -> Result<String, Error> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).map_err(Error::io(format!("reading {path}")))
    }
}

impl FromStr for Process {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// `utime` and `stime`, fields 14 and 15. The second field, the name, may hold anything, also blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "4711 (a) b (c)) S 1 4711 4711 0 -1 4194304 500 0 0 0 120 30 0 0 20 0 4 0 100 0 0";
        assert_eq!(ticks(stat), Some(150));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1024 * 1024));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Process::this().rss_bytes().unwrap() > 0);
        Process::this().cpu_s().unwrap();
    }
}
