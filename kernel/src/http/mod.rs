//! The status of the server over HTTP/1.1, for people and for programs that watch: [`Path`] says what
//! there is. Nothing can be changed by it.
//!
//! It is a guest in the house of the NTP server: there are [`CONNECTIONS`] connections in fixed memory, each
//! for one request; a round of the service loop does a bounded piece of work for them after it has
//! served a batch of frames, at most one answer; and who is slow is cut: [`OPENING`], [`ASKING`] and
//! [`ANSWERING`]. While nobody could connect, the connection that has been waiting longest
//! for its request is cut sooner, after [`CROWDED`].
//!
//! A disruption cuts all connections, so that no answer is sent, or sent again, that was filled in
//! before it.

pub mod answer;
pub mod history;
mod metrics;
pub mod page;
mod path;
mod request;
mod status;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use self::answer::{Answer, BODY, HEAD};
pub use self::path::Path;
pub use self::request::{Parser, Refusal, Request};
use crate::net::stack::Stack;

/// The TCP port.
pub const PORT: u16 = 80;

/// Connections at a time.
pub const CONNECTIONS: usize = 4;

/// How long a client may take to confirm its connection.
pub const OPENING: Duration = Duration::from_secs(2);
/// How long it may take to ask, once connected.
pub const ASKING: Duration = Duration::from_secs(5);
/// How long it may take to receive the answer and to close.
pub const ANSWERING: Duration = Duration::from_secs(10);
/// How long it may take for either of the first two when nobody else could connect.
pub const CROWDED: Duration = Duration::from_millis(500);
/// How long a reset may take to get out.
const RESETTING: Duration = Duration::from_secs(1);
/// How often the clock is looked at when nothing comes.
const LOOK: core::time::Duration = core::time::Duration::from_millis(100);

/// Bytes that a connection can take before they are looked at.
const RECEIVE: usize = 1024;
/// Bytes that a connection can have sent before they are acknowledged: every answer but the page.
const SEND: usize = HEAD + BODY;

/// Memory of the connections.
#[derive(Debug)]
pub struct Memory {
    receive: [[u8; RECEIVE]; CONNECTIONS],
    send: [[u8; SEND]; CONNECTIONS],
}

impl Memory {
    /// Empty.
    #[must_use]
    #[expect(
        clippy::large_stack_arrays,
        reason = "it becomes a static, or is boxed in tests"
    )]
    pub const fn new() -> Self {
        Self {
            receive: [[0; RECEIVE]; CONNECTIONS],
            send: [[0; SEND]; CONNECTIONS],
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// The connections.
#[derive(Debug)]
pub(crate) struct Server {
    connections: [Option<Connection>; CONNECTIONS],
    /// The disruption marker at the last look.
    marker: u64,
    look_again: core::time::Duration,
}

#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    phase: Phase,
    /// When this phase began, and when the client is cut.
    since: Instant,
    until: Instant,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are four, in place")]
enum Phase {
    /// Nobody is there.
    Idle,
    /// The head is being read.
    Asking(Parser),
    /// It has been.
    Asked(Result<Request, Refusal>),
    /// What is still to be put into the send buffer, and whether the time and the rest of the page follow.
    Answering(&'static [u8], bool),
    /// Everything is on its way.
    Closing,
    /// A reset is to be sent.
    Cut,
}

/// What a connection needs of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The answer to this.
    Answer(Result<Request, Refusal>),
    /// The time in the page.
    Plain,
}

impl Server {
    /// A server that is off.
    pub(crate) const fn off() -> Self {
        Self {
            connections: [const { None }; CONNECTIONS],
            marker: 0,
            look_again: core::time::Duration::ZERO,
        }
    }

    /// A server on this stack.
    pub(crate) fn new<'s>(stack: &mut Stack<'s>, memory: &'s mut Memory, now: Instant) -> Self {
        let mut server = Self::off();
        let buffers = memory.receive.iter_mut().zip(&mut memory.send);
        for (connection, (receive, send)) in server.connections.iter_mut().zip(buffers) {
            *connection = Some(Connection::new(stack, receive, send, now));
        }
        server
    }

    /// How many connections clients have.
    pub(crate) fn connections(&self) -> usize {
        let all = self.connections.iter().flatten();
        all.filter(|connection| !matches!(connection.phase, Phase::Idle))
            .count()
    }

    /// Whether it is time to look, apart from news of the stack's.
    pub(crate) fn is_due(&self, uptime: core::time::Duration) -> bool {
        self.look_again <= uptime
    }

    /// Cuts everybody if the disruption marker is another one: what they would get, or get again, is
    /// from before.
    pub(crate) fn guard(&mut self, stack: &mut Stack<'_>, marker: u64) {
        if core::mem::replace(&mut self.marker, marker) != marker {
            self.cut_all(stack);
        }
    }

    /// Cuts everybody.
    pub(crate) fn cut_all(&mut self, stack: &mut Stack<'_>) {
        for connection in self.connections.iter_mut().flatten() {
            if !matches!(connection.phase, Phase::Idle | Phase::Cut) {
                connection.cut(stack);
            }
        }
    }

    /// Looks after every connection, and says which of them needs what, if one does. Without news of the stack's it is
    /// not time to look again before `due`, if nobody is connected.
    #[inline(never)]
    pub(crate) fn look(
        &mut self,
        stack: &mut Stack<'_>,
        uptime: core::time::Duration,
        now: Instant,
        due: core::time::Duration,
    ) -> Option<(usize, Need)> {
        let mut need = None;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if let Some(connection) = connection {
                connection.look(stack, now);
                need = need.or_else(|| Some((index, connection.need(stack)?)));
            }
        }
        self.make_room(stack, now);
        let mut connections = self.connections.iter().flatten();
        let is_quiet = connections.all(|connection| matches!(connection.phase, Phase::Idle));
        self.look_again = if is_quiet { due } else { uptime + LOOK };
        need
    }

    /// Puts the answer into the send buffer of a connection that needs it.
    #[inline(never)]
    pub(crate) fn answer(&mut self, stack: &mut Stack<'_>, index: usize, answer: &Answer) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        let Phase::Asked(request) = connection.phase else {
            return;
        };
        let socket = stack.tcp(connection.handle);
        let has_room = [answer.head(), answer.body()]
            .into_iter()
            .all(|part| socket.send_slice(part) == Ok(part.len()));
        let wants_page = matches!(
            request,
            Ok(Request {
                path: Path::Page,
                head_only: false
            })
        );
        connection.phase = if wants_page {
            Phase::Answering(page::BEFORE, true)
        } else {
            Phase::Answering(&[], false)
        };
        if !has_room {
            connection.cut(stack);
        }
    }

    /// Puts the time into the page that is being sent.
    pub(crate) fn plain(&mut self, stack: &mut Stack<'_>, index: usize, plain: &str) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        let socket = stack.tcp(connection.handle);
        if socket.send_slice(plain.as_bytes()) == Ok(plain.len()) {
            connection.phase = Phase::Answering(page::AFTER, false);
        } else {
            connection.cut(stack);
        }
    }

    /// Sees to it that somebody can connect.
    #[inline(never)]
    fn make_room(&mut self, stack: &mut Stack<'_>, now: Instant) {
        let connections = || self.connections.iter().flatten();
        if connections().any(|connection| matches!(connection.phase, Phase::Idle | Phase::Cut)) {
            return;
        }
        let waiting = self.connections.iter_mut().flatten();
        let longest = waiting
            .filter(|connection| matches!(connection.phase, Phase::Asking(_)))
            .min_by_key(|connection| connection.since);
        if let Some(connection) = longest
            && connection.since + CROWDED <= now
        {
            connection.cut(stack);
        }
    }
}

impl Connection {
    #[inline(never)]
    fn new<'s>(
        stack: &mut Stack<'s>,
        receive: &'s mut [u8],
        send: &'s mut [u8],
        now: Instant,
    ) -> Self {
        let socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
        Self {
            handle: stack.add(socket),
            phase: Phase::Cut,
            since: now,
            until: now,
        }
    }

    #[inline(never)]
    fn look(&mut self, stack: &mut Stack<'_>, now: Instant) {
        let socket = stack.tcp(self.handle);
        match (&self.phase, socket.state()) {
            (Phase::Cut, _) if socket.remote_endpoint().is_none() || self.until <= now => {
                return self.listen(socket);
            }
            (Phase::Cut, _) | (Phase::Idle, State::Listen) => return,
            (Phase::Idle, _) => self.enter(Phase::Asking(Parser::new()), now, ASKING),
            // It was reset while it opened.
            (Phase::Asking(_), State::Listen) => self.phase = Phase::Idle,
            // It is over: there is nothing to wait for.
            (_, State::TimeWait | State::Closed) => return self.listen(socket),
            _ => {}
        }
        let is_late = match (&self.phase, socket.state()) {
            (Phase::Asking(_), State::SynReceived) => self.since + OPENING <= now,
            (Phase::Idle, _) => false,
            _ => self.until <= now,
        };
        if is_late {
            self.until = now + RESETTING;
            return self.cut(stack);
        }
        match &mut self.phase {
            Phase::Asking(parser) => {
                if let Some(request) = read(socket, parser) {
                    self.enter(Phase::Asked(request), now, ANSWERING);
                } else if !socket.may_recv() && socket.state() != State::SynReceived {
                    // It has said its last word, and it was no request.
                    self.cut(stack);
                }
            }
            Phase::Answering(..) => {
                drop_received(socket);
                self.send(stack);
            }
            Phase::Closing => drop_received(socket),
            Phase::Idle | Phase::Asked(_) | Phase::Cut => {}
        }
    }

    #[inline(never)]
    fn need(&self, stack: &mut Stack<'_>) -> Option<Need> {
        match self.phase {
            Phase::Asked(request) => Some(Need::Answer(request)),
            Phase::Answering([], true) => {
                let socket = stack.tcp(self.handle);
                let room = socket.send_capacity() - socket.send_queue();
                (room >= page::PLAIN).then_some(Need::Plain)
            }
            _ => None,
        }
    }

    /// Puts as much of the page into the send buffer as there is room for.
    #[inline(never)]
    fn send(&mut self, stack: &mut Stack<'_>) {
        let Phase::Answering(rest, time_follows) = &mut self.phase else {
            return;
        };
        let socket = stack.tcp(self.handle);
        if let Ok(sent @ 1..) = socket.send_slice(rest) {
            *rest = rest.get(sent..).unwrap_or_default();
            stack.wake();
        }
        if rest.is_empty() && !*time_follows {
            stack.tcp(self.handle).close();
            stack.wake();
            self.phase = Phase::Closing;
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant, limit: Duration) {
        self.phase = phase;
        self.since = now;
        self.until = now + limit;
    }

    /// Waits for the next client.
    #[inline(never)]
    fn listen(&mut self, socket: &mut Socket<'_>) {
        // Without a word: the last client is gone, or does not hear.
        socket.abort();
        // A closed socket can listen at any port but 0.
        let _ = socket.listen(PORT);
        self.phase = Phase::Idle;
    }

    /// Ends the connection with a reset.
    #[inline(never)]
    fn cut(&mut self, stack: &mut Stack<'_>) {
        stack.tcp(self.handle).abort();
        stack.wake();
        self.phase = Phase::Cut;
    }
}

/// Feeds the parser with what has come.
#[inline(never)]
fn read(socket: &mut Socket<'_>, parser: &mut Parser) -> Option<Result<Request, Refusal>> {
    let mut request = None;
    while request.is_none() && socket.can_recv() {
        let read = socket.recv(|bytes| {
            let mut taken = 0;
            for byte in &*bytes {
                taken += 1;
                request = parser.feed(*byte);
                if request.is_some() {
                    break;
                }
            }
            (taken, ())
        });
        if read.is_err() {
            break;
        }
    }
    request
}

/// Drops what a client says after its request.
#[inline(never)]
fn drop_received(socket: &mut Socket<'_>) {
    while socket.can_recv() {
        if socket.recv(|bytes| (bytes.len(), ())).is_err() {
            break;
        }
    }
}
