//! Any bytes as a connection to the public door: no panic, it ends, and every answer is one of the
//! contract's, with its body. CONTRIBUTING.md says how to run it.
#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
#[path = "../standalone_server.rs"]
mod standalone_server;
use standalone_server::StandaloneServer;

thread_local! {
    static DOOR: OnceCell<(Runtime, StandaloneServer)> = const { OnceCell::new() };
}

fn open() -> (Runtime, StandaloneServer) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let alone = {
        let _inside = runtime.enter();
        StandaloneServer::new().expect("nothing outside is needed")
    };
    (runtime, alone)
}

fuzz_target!(|data: &[u8]| {
    DOOR.with(|door| {
        let (runtime, alone) = door.get_or_init(open);
        runtime.block_on(alone.run_connection(data));
    });
});
