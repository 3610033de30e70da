//! A tokio task for every connection, to measure overfall against.
//!
//! Usage: `tokio APP WORK ADDR [PERMITS]`: the app `hello` or `echo`, the CPU to burn for each
//! request such as `1ms`, and the connections to admit at once, where there is to be a limit.

use std::{env, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

#[tokio::main]
async fn main() {
    let args: Vec<String> = env::args().collect();
    let [_, app, work, addr, permits @ ..] = &args[..] else {
        panic!("usage: tokio APP WORK ADDR [PERMITS]")
    };
    let echo = app == "echo";
    let work = humantime::parse_duration(work).expect("WORK is a duration such as 1ms");
    let semaphore =
        permits.first().map(|permits| Arc::new(Semaphore::new(permits.parse().expect("a number"))));
    let listener = TcpListener::bind(addr).await.expect("ADDR is free");
    loop {
        let permit = match &semaphore {
            Some(semaphore) => Some(Arc::clone(semaphore).acquire_owned().await.expect("never closed")),
            None => None,
        };
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let _permit = permit;
            // A client that goes away is no concern of the others.
            let _ = if echo { serve_echo(stream, work).await } else { serve_hello(stream, work).await };
        });
    }
}

async fn serve_hello(mut stream: TcpStream, work: Duration) -> std::io::Result<()> {
    if stream.read(&mut [0; 1024]).await? > 0 {
        burn(work);
        stream.write_all(b"Hello, client!").await?;
    }
    Ok(())
}

async fn serve_echo(mut stream: TcpStream, work: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        burn(work);
        stream.write_all(&piece[..length]).await?;
    }
}

/// Burns CPU on the thread's own clock.
fn burn(work: Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("never negative");
    let started = now();
    while !work.is_zero() && now() - started < work {
        std::hint::spin_loop();
    }
}
