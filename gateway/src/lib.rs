//! The public door as a library, for its binary and for the fuzzer. The console is no part of it: what
//! the public process does not link, nobody can reach through it.

pub mod ingest;
