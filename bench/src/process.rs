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

    /// The same of its children too, those that have ended included: of a server with a process per connection.
    pub(crate) fn family_cpu_s(self) -> Result<f64, Error> {
        let mut all = 0;
        for entry in fs::read_dir("/proc").map_err(Error::io("reading /proc"))?.flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Self) else {
                continue;
            };
            // One may end while we look; then the parent has its time.
            let Ok(stat) = process.read("stat") else { continue };
            if process == self {
                all += ticks(&stat).unwrap_or(0) + ticks_of_ended(&stat).unwrap_or(0);
            } else if parent(&stat) == Some(self.0) {
                all += ticks(&stat).unwrap_or(0);
            }
        }
        Ok(all as f64 / clock_ticks_per_second() as f64)
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

/// `utime` and `stime`, fields 14 and 15.
fn ticks(stat: &str) -> Option<u64> {
    Some(field(stat, 14)? + field(stat, 15)?)
}

/// `cutime` and `cstime`, fields 16 and 17: of children that were waited for.
fn ticks_of_ended(stat: &str) -> Option<u64> {
    Some(field(stat, 16)? + field(stat, 17)?)
}

fn parent(stat: &str) -> Option<u32> {
    u32::try_from(field(stat, 4)?).ok()
}

/// By the number it has in proc(5). The second, the name, may hold anything, also blanks and brackets.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number - 3)?.parse().ok()
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
        let stat = "4711 (a) b (c)) S 1 4711 4711 0 -1 4194304 500 0 0 0 120 30 7 2 20 0 4 0 100 0 0";
        assert_eq!((parent(stat), ticks(stat), ticks_of_ended(stat)), (Some(1), Some(150), Some(9)));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1024 * 1024));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Process::this().rss_bytes().unwrap() > 0);
        assert!(Process::this().family_cpu_s().unwrap() >= Process::this().cpu_s().unwrap() - 0.1);
    }
}
