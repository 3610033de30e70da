//! What the figures say, for people and for programs. It measures nothing.

mod charts;
mod document;
mod marks;
mod page;
mod scale;
mod sentences;
mod svg;
mod table;
mod text;
mod verdict;
mod words;
