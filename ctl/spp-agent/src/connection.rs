//! One connection to spp-ctl: reads commands, writes answers.
//!
//! Commands are carried out on a blocking thread, one read at a time and in order.

use std::sync::Arc;
use std::time::Duration;

use ctl_spp::run::{Outcome, run};
use ctl_spp::words::{Command, MAX_LINE, parse};
use ctl_spp::{Proc, ProcType, Spp, SppError, StatusFormat};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::json;
use super::reply::{Forms, IdForm, reply};
use super::{Agent, Over, PATIENCE, gone};

/// A connection that spp-ctl closes this soon after the client id was refused for the form of the id.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// Most commands in one read. SPP has the same limit.
pub(super) const MAX_COMMANDS: usize = 32;
/// Bytes of one read.
const READ: usize = MAX_COMMANDS * (MAX_LINE + 1);
/// Most bytes that are discarded when more come than one read takes.
const MAX_PASSED_OVER: usize = 16 << 20;
/// Bytes of the socket's send buffer. It holds the status of the largest classifier table.
const SEND_BUFFER: usize = 8 << 20;
/// Longest wait for the rest of a JSON request that comes in parts.
const REST: Duration = Duration::from_secs(1);
/// TCP keep-alive: seconds without traffic before the first probe, seconds between probes, and their number.
const KEEP_ALIVE: (u32, u32, u32) = (30, 10, 3);

/// The answers to the commands of one read.
pub(super) struct Answers {
    /// The text to send.
    pub text: String,
    /// Whether spp-ctl asked more than the client id.
    pub asked: bool,
    /// Whether the instance has ended.
    pub ended: bool,
}

impl Agent {
    /// Answers commands until the connection ends.
    pub(super) async fn answer(&mut self, mut stream: TcpStream) -> Over {
        prepare(&stream);
        let mut buffer = vec![0; READ];
        let (mut asked, mut told) = (false, None);
        loop {
            let read = tokio::select! {
                biased;
                () = gone(&mut self.names, &mut self.stopped, self.proc) => return Over::Done,
                read = stream.read(&mut buffer) => read.unwrap_or(0),
            };
            if read == 0 {
                self.forms.id = next_id_form(self.proc, self.forms, asked, told);
                return Over::Lost { asked };
            }
            let read = with_rest(&mut stream, &mut buffer, read).await;
            // `pass_over` overwrites the buffer. After it the commands are refused as a whole.
            let too_much = read == READ && pass_over(&stream, &mut buffer);
            let bytes = if too_much { None } else { Some(buffer[..read].to_vec()) };
            let (spp, proc, forms) = (Arc::clone(&self.spp), self.proc, self.forms);
            let answers = spawn_blocking(move || answers(&spp, proc, bytes.as_deref(), forms));
            let answers = tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => return Over::Done,
                answers = answers => answers,
            };
            let Ok(answers) = answers else { return Over::Lost { asked } };
            asked |= answers.asked;
            told = Some(Instant::now());
            let written = tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => return Over::Done,
                written = timeout(PATIENCE, stream.write_all(answers.text.as_bytes())) => written,
            };
            match written {
                _ if answers.ended => return Over::Done,
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Over::Lost { asked },
            }
        }
    }
}

/// The form of the client id on the next connection. It is the other form if spp-ctl refused this one.
fn next_id_form(proc: Proc, forms: Forms, asked: bool, told: Option<Instant>) -> IdForm {
    let refused = !asked && told.is_some_and(|told| told.elapsed() < REFUSED_WITHIN);
    match forms.id {
        // The configuration says what a version takes, unless it says that it takes JSON.
        id if proc.kind != ProcType::Nfv || !refused || forms.status != StatusFormat::Json => id,
        IdForm::Number => IdForm::Json,
        IdForm::Json => IdForm::Number,
    }
}

/// Reads the rest of a JSON request that is cut off. Returns how many bytes the buffer has then.
async fn with_rest(stream: &mut TcpStream, buffer: &mut [u8], mut read: usize) -> usize {
    let until = Instant::now() + REST;
    while read < buffer.len() && json::is_cut_off(&buffer[..read]) {
        match timeout_at(until, stream.read(&mut buffer[read..])).await {
            Ok(Ok(more @ 1..)) => read += more,
            Ok(Ok(0) | Err(_)) | Err(_) => break,
        }
    }
    read
}

/// Discards what follows a full read, and says whether there was anything.
fn pass_over(stream: &TcpStream, buffer: &mut [u8]) -> bool {
    let mut passed = 0;
    while passed < MAX_PASSED_OVER {
        match stream.try_read(buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => passed += read,
        }
    }
    passed > 0
}

/// Sets the socket's options. Without delay: spp-ctl does not wait for the last segment of an answer. Keep-alive: a
/// spp-ctl whose machine is gone must be noticed.
fn prepare(stream: &TcpStream) {
    let (idle, interval, count) = KEEP_ALIVE;
    let room = setsockopt(stream, sockopt::SndBufForce, &SEND_BUFFER);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(room.or_else(|_| setsockopt(stream, sockopt::SndBuf, &SEND_BUFFER))?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::KeepAlive, &true)?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::TcpKeepIdle, &idle)?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::TcpKeepInterval, &interval)?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::TcpKeepCount, &count)?));
    if let Err(error) = set {
        tracing::debug!(%error, "options of a connection to spp-ctl");
    }
}

/// Carries out the commands of one read in order. `None`: the read was too long.
fn answers(spp: &Spp, proc: Proc, bytes: Option<&[u8]>, forms: Forms) -> Answers {
    if let Some(request) = bytes.filter(|bytes| json::is_request(bytes)) {
        return json::answers(spp, proc, request);
    }
    let mut answers = Answers { text: String::new(), asked: false, ended: false };
    let lines = match lines(bytes) {
        Ok(lines) => lines,
        Err(why) => {
            answers.text = reply(proc, None, &Err(SppError::refused(why)), forms);
            answers.asked = true;
            return answers;
        }
    };
    for line in lines {
        let command = parse(proc.kind, line);
        let result = match &command {
            Ok(command) => run(spp, proc, command),
            Err(why) => Err(SppError::refused(why)),
        };
        tracing::debug!(%proc, line, ?result, "a command of spp-ctl");
        answers.asked |= !matches!(command, Ok(Command::ClientId));
        answers.ended = matches!(result, Ok(Outcome::Ended));
        if !answers.text.is_empty() {
            answers.text.push('\n');
        }
        answers.text += &reply(proc, command.as_ref().ok(), &result, forms);
        if answers.ended {
            break;
        }
    }
    answers
}

/// The lines of one read, or why it is refused as a whole.
fn lines(bytes: Option<&[u8]>) -> Result<Vec<&str>, String> {
    let wrong = |why: String| format!("Wrong message format: {why}");
    let bytes = bytes.ok_or_else(|| wrong(format!("more than {READ} bytes")))?;
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
    let lines: Vec<&str> = text.trim_end_matches('\0').trim().split('\n').collect();
    if lines.len() > MAX_COMMANDS {
        return Err(wrong(format!("more than {MAX_COMMANDS} commands")));
    }
    Ok(lines)
}
