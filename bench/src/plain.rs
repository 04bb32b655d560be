//! The yardstick of the fan-out: a server that does nothing but `send()` what it is told to each of its sockets.
//!
//! It runs as a process of its own (`notifyx-bench plain-server`), in the same run as what is measured. What a gateway
//! reaches of its rate is what the gateway itself costs; the rest is the kernel's.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use rustix::event::epoll;

use crate::{error::Error, frame, process::Process};

/// What a subscriber reads first, so that it knows it is one.
pub(crate) const WELCOME: &str = "welcome";
/// The answer to each message of a publisher.
const ACCEPTED: u8 = b'+';
/// A subscriber that does not read for this long ends the measurement.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The server process, seen from the client.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) subscribe: SocketAddr,
    pub(crate) publish: SocketAddr,
    pub(crate) process: Process,
    child: Child,
    /// The server ends when this closes.
    _alive: Option<ChildStdin>,
}

impl Plain {
    pub(crate) fn start(core: Option<usize>) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("finding this program"))?;
        let mut command = on_core(core, &program);
        let mut child = command
            .arg("plain-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("starting the plain server"))?;
        let mut line = String::new();
        let told = child.stdout.take().map(BufReader::new).map(|mut out| out.read_line(&mut line));
        told.unwrap_or(Ok(0)).map_err(Error::io("reading the plain server's addresses"))?;
        let mut addresses = line.split_whitespace().map(str::parse);
        let (Some(Ok(subscribe)), Some(Ok(publish))) = (addresses.next(), addresses.next()) else {
            return Err(Error::failed("the plain server did not say where it listens"));
        };
        let alive = child.stdin.take();
        Ok(Self { subscribe, publish, process: Process::of(child.id()), child, _alive: alive })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Nothing of it is to be kept; that it has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `program`, held to one core if so asked: what it starts with decides how many threads it makes.
pub(crate) fn on_core(core: Option<usize>, program: &std::path::Path) -> Command {
    match core {
        None => Command::new(program),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(program);
            command
        }
    }
}

const SUBSCRIBERS: u64 = 0;
const PUBLISHERS: u64 = 1;
const PARENT: u64 = 2;
const FIRST_PUBLISHER: u64 = 3;

/// The server itself. Ends when its standard input does.
pub(crate) fn serve() -> Result<(), Error> {
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let (subscribe, at) = listen().map_err(Error::io("listening"))?;
    let (publish, publish_at) = listen().map_err(Error::io("listening"))?;
    println!("{at} {publish_at}");
    io::stdout().flush().map_err(Error::io("saying where it listens"))?;
    Server { subscribe, publish, subscribers: Vec::new(), publishers: Vec::new(), waiting: Vec::new() }
        .run()
        .map_err(Error::io("the plain server"))
}

struct Server {
    subscribe: TcpListener,
    publish: TcpListener,
    subscribers: Vec<TcpStream>,
    /// `None` where one has gone.
    publishers: Vec<Option<TcpStream>>,
    /// Whole frames of all publishers, joined.
    waiting: Vec<u8>,
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |source: &dyn std::os::fd::AsFd, name| {
            epoll::add(&ready, source.as_fd(), epoll::EventData::new_u64(name), epoll::EventFlags::IN)
        };
        watch(&self.subscribe, SUBSCRIBERS)?;
        watch(&self.publish, PUBLISHERS)?;
        watch(&io::stdin(), PARENT)?;
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 64];
        loop {
            let (happened, _) = match epoll::wait(&ready, &mut events[..], None) {
                Err(rustix::io::Errno::INTR) => continue,
                happened => happened?,
            };
            for event in happened {
                match event.data.u64() {
                    PARENT => return Ok(()),
                    SUBSCRIBERS => self.welcome()?,
                    PUBLISHERS => {
                        while let Some(stream) = accepted(&self.publish)? {
                            stream.set_nonblocking(true)?;
                            watch(&stream, FIRST_PUBLISHER + self.publishers.len() as u64)?;
                            self.publishers.push(Some(stream));
                        }
                    }
                    publisher => self.take(publisher)?,
                }
            }
            self.send();
        }
    }

    fn welcome(&mut self) -> io::Result<()> {
        while let Some(mut stream) = accepted(&self.subscribe)? {
            stream.set_nonblocking(false)?;
            stream.set_write_timeout(Some(SEND_TIMEOUT))?;
            stream.write_all(&frame::from_server(WELCOME))?;
            self.subscribers.push(stream);
        }
        Ok(())
    }

    /// A publisher has at most one message in flight and sends it in one write: loopback hands it over whole.
    fn take(&mut self, publisher: u64) -> io::Result<()> {
        let index = usize::try_from(publisher - FIRST_PUBLISHER).expect("an index of the list");
        let Some(stream) = &mut self.publishers[index] else { return Ok(()) };
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) => {
                // Closing it takes it out of the epoll.
                self.publishers[index] = None;
                Ok(())
            }
            Ok(read) => {
                self.waiting.extend_from_slice(&buffer[..read]);
                stream.write_all(&[ACCEPTED])
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        // One that has gone is noticed by the client, which counts.
        self.subscribers.retain_mut(|stream| stream.write_all(&self.waiting).is_ok());
        self.waiting.clear();
    }
}

fn accepted(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
