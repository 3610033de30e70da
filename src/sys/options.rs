//! Options of sockets that no crate has a safe call for. It knows not what they are for.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Sets an option of this level and name (`setsockopt(2)`), whose value is laid out as the kernel has it.
pub(super) fn set<T>(socket: &impl AsFd, level: i32, name: i32, value: &T) -> rustix::io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel reads the value, which is there, and
    // whatever that points to it reads with checks of its own and keeps a copy of.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Has newcomers be accepted when they have sent something, or are silent for about a second; or at once
/// (`TCP_DEFER_ACCEPT`, `tcp(7)`).
pub(crate) fn defer_accept(listener: &impl AsFd, defer: bool) -> rustix::io::Result<()> {
    set(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &libc::c_int::from(defer))
}
