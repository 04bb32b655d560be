//! The subscribers: one thread, one epoll, one buffer, for thousands of sockets.
//!
//! Lean on purpose, so that the server is what is measured: a delivery is a `read`, a look at the frame's header and ten
//! digits. Nothing is parsed, nothing allocated; a socket keeps bytes only while a frame is cut.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use serde::Serialize;

use crate::{
    connect::Connected,
    error::Error,
    flight::Flight,
    frame::{self, FRAME_BYTES_MAX},
    latency::Latency,
    payload::Finder,
};

/// The client of Phoenix beats every 30 s and the server gives up after 60.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(20);
/// Names the eventfd among the sockets.
const COMMANDS: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;

/// What the subscribers saw of one flight.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// From sending a message to each of its deliveries.
    pub(crate) latency: Latency,
    /// Frames without a number: replies to heartbeats.
    pub(crate) other: u64,
    /// Deliveries of another flight, or twice.
    pub(crate) stray: u64,
    /// Sockets that ended since the crowd began, by reason.
    pub(crate) lost: BTreeMap<String, u32>,
}

#[derive(Debug)]
enum Command {
    Add(Connected),
    Begin(Arc<Flight>, mpsc::Sender<()>),
    Finish(mpsc::Sender<Tally>),
    Stop,
}

/// The handle of the thread.
#[derive(Debug)]
pub(crate) struct Crowd {
    commands: mpsc::Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Crowd {
    /// `heartbeat` is sent on every socket at intervals.
    pub(crate) fn start(heartbeat: Option<Vec<u8>>) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed("creating an epoll", e))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| failed("an eventfd", e))?;
        let wake = Arc::new(wake);
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(COMMANDS), epoll::EventFlags::IN)
            .map_err(|e| failed("watching the eventfd", e))?;
        let (commands, inbox) = mpsc::channel();
        let mut listening = Listening {
            epoll,
            wake: wake.clone(),
            inbox,
            heartbeat,
            sockets: Vec::new(),
            buffer: vec![0; 2 * FRAME_BYTES_MAX],
            finder: Finder::default(),
            flight: Arc::new(Flight::new(0, 0, 0, 1)),
            tally: Tally::default(),
        };
        let thread = std::thread::Builder::new().name("crowd".into()).spawn(move || listening.listen());
        Ok(Self { commands, wake, thread: Some(thread.map_err(Error::io("starting the crowd's thread"))?) })
    }

    pub(crate) fn add(&self, connected: Connected) {
        self.tell(Command::Add(connected));
    }

    /// Returns when the subscribers wait for this flight's messages.
    pub(crate) fn begin(&self, flight: Arc<Flight>) -> Result<(), Error> {
        let (done, begun) = mpsc::channel();
        self.tell(Command::Begin(flight, done));
        begun.recv().map_err(|_| ended())
    }

    /// What was seen since `begin`.
    pub(crate) fn finish(&self) -> Result<Tally, Error> {
        let (told, tally) = mpsc::channel();
        self.tell(Command::Finish(told));
        tally.recv().map_err(|_| ended())
    }

    fn tell(&self, command: Command) {
        // A thread that has ended is noticed by `begin` and `finish`, which wait for its word.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    /// Closes the sockets.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        self.tell(Command::Stop);
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| Err(ended())))
    }
}

fn failed(doing: &str, errno: rustix::io::Errno) -> Error {
    Error::Io { doing: doing.to_owned(), source: errno.into() }
}

fn ended() -> Error {
    Error::failed("the thread of the subscribers has ended")
}

/// What the thread owns.
struct Listening {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    inbox: mpsc::Receiver<Command>,
    heartbeat: Option<Vec<u8>>,
    /// `None` where one was lost.
    sockets: Vec<Option<Connected>>,
    buffer: Vec<u8>,
    finder: Finder,
    flight: Arc<Flight>,
    tally: Tally,
}

impl Listening {
    fn listen(&mut self) -> Result<(), Error> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let mut beat_at = Instant::now() + HEARTBEAT_INTERVAL;
        loop {
            let wait = beat_at.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(wait).expect("at most the interval");
            let ready = match epoll::wait(&self.epoll, &mut events[..], Some(&wait)) {
                Ok((ready, _)) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(failed("waiting for deliveries", errno)),
            };
            for event in ready {
                match event.data.u64() {
                    COMMANDS => {
                        if self.obey()? {
                            return Ok(());
                        }
                    }
                    number => self.read(usize::try_from(number).expect("an index of the list")),
                }
            }
            if Instant::now() >= beat_at {
                self.beat();
                beat_at = Instant::now() + HEARTBEAT_INTERVAL;
            }
        }
    }

    /// Answers whether to stop.
    fn obey(&mut self) -> Result<bool, Error> {
        // Resets the eventfd; that it was reset already is no matter.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Add(connected) => self.add(connected)?,
                Command::Begin(flight, begun) => {
                    self.flight = flight;
                    self.tally = Tally { lost: std::mem::take(&mut self.tally.lost), ..Tally::default() };
                    let _ = begun.send(());
                }
                Command::Finish(told) => {
                    let _ = told.send(self.tally.clone());
                }
                Command::Stop => return Ok(true),
            }
        }
        Ok(false)
    }

    fn add(&mut self, connected: Connected) -> Result<(), Error> {
        let number = self.sockets.len();
        let data = epoll::EventData::new_u64(number as u64);
        // Edge-triggered: a socket that was read empty costs nothing until more comes.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &connected.stream, data, flags).map_err(|e| failed("watching a socket", e))?;
        self.sockets.push(Some(connected));
        Ok(())
    }

    /// Reads a socket empty. A read that does not fill the buffer has emptied it.
    fn read(&mut self, number: usize) {
        loop {
            let Some(Connected { stream, arrived }) = &mut self.sockets[number] else { return };
            let kept = arrived.len();
            self.buffer[..kept].copy_from_slice(arrived);
            let read = match stream.read(&mut self.buffer[kept..]) {
                Ok(0) => return self.lose(number, "the server ended the connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.lose(number, &error.kind().to_string()),
            };
            let bytes = &self.buffer[..kept + read];
            match count(bytes, &self.flight, &mut self.finder, &mut self.tally) {
                Ok(used) => {
                    // An idle socket holds no buffer here either; a cut frame is rare.
                    *arrived = if used == bytes.len() { Vec::new() } else { bytes[used..].to_vec() };
                }
                Err(reason) => return self.lose(number, &reason),
            }
            if kept + read < self.buffer.len() {
                return;
            }
        }
    }

    fn lose(&mut self, number: usize, reason: &str) {
        // Closing it takes it out of the epoll.
        self.sockets[number] = None;
        *self.tally.lost.entry(reason.to_owned()).or_default() += 1;
    }

    fn beat(&mut self) {
        let Some(heartbeat) = &self.heartbeat else { return };
        for Connected { stream, .. } in self.sockets.iter_mut().flatten() {
            // One that cannot take it is read, and lost, when its end arrives.
            let _ = stream.write_all(heartbeat);
        }
    }
}

/// Counts whole frames; answers how many bytes they took, or why the socket is lost.
fn count(bytes: &[u8], flight: &Flight, finder: &mut Finder, tally: &mut Tally) -> Result<usize, String> {
    let now = flight.now();
    let mut closed = None;
    let used = frame::scan(bytes, |opcode, payload| {
        if opcode == frame::CLOSE {
            let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
            closed = Some(format!("closed with {code}"));
            return;
        }
        match finder.seq(payload) {
            None => tally.other += 1,
            Some(seq) => match flight.delivered(seq, now) {
                Some(nanos) => tally.latency.record(nanos),
                None => tally.stray += 1,
            },
        }
    })
    .map_err(|error| error.to_string())?;
    closed.map_or(Ok(used), Err)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::payload;

    fn pair() -> (TcpStream, Connected) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        (listener.accept().unwrap().0, Connected { stream, arrived: Vec::new() })
    }

    #[tokio::test]
    async fn cut_and_joined_frames_are_deliveries_each() {
        let crowd = Crowd::start(None).unwrap();
        let (mut server, connected) = pair();
        crowd.add(connected);
        let flight = Arc::new(Flight::new(0, 3, 1, 3));
        crowd.begin(flight.clone()).unwrap();
        let stream: Vec<u8> = (0..3).flat_map(|seq| frame::from_server(&payload::text(seq, 200))).collect();
        server.set_nodelay(true).unwrap();
        server.write_all(&stream[..250]).unwrap();
        flight.landed(0).await;
        server.write_all(&stream[250..]).unwrap();
        flight.landed(1).await;
        flight.landed(2).await;
        let tally = crowd.finish().unwrap();
        assert_eq!((tally.latency.count(), tally.other, tally.stray), (3, 0, 0));
        crowd.stop().unwrap();
    }

    #[test]
    fn a_lost_socket_is_told_with_its_code() {
        let mut tally = Tally::default();
        let close = [0x88, 2, 0x0B, 0xC0];
        let lost = count(&close, &Flight::new(0, 0, 0, 1), &mut Finder::default(), &mut tally);
        assert_eq!(lost, Err("closed with 3008".to_owned()));
    }
}
