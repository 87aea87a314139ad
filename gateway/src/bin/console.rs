//! The console: settings over HTTP. It never links the public door.

fn main() {}
