//! `weft-proxy`.

fn main() -> std::process::ExitCode {
    weft::weft_proxy()
}
