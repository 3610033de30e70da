//! The server and the command against real sockets.

mod admin;
mod balance;
mod bench;
mod command;
mod config_file;
mod dial;
mod drain;
mod field;
mod full;
mod http;
mod limits;
mod logs;
mod man;
mod models;
mod observe;
mod overload;
mod parked;
mod proxy;
mod proxy_faults;
mod reload;
mod restart;
mod smuggling;
mod support;
mod unhappy;
mod upstream;
