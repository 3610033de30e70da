//! Services as users write them, each with tests that need no socket: what is long or awkward here is so for
//! everybody.

mod files;
mod items;
mod key_value;
