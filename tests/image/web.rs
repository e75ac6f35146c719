//! The program in the test image: one static binary, made on the spot and offline. A web server, unless told otherwise:
//! `web [serve [PORT]]`, `web sleep`, `web say TEXT…`, `web fail CODE`, `web cat`, `web lines N`, `web look PATH…`,
//! `web look-and-sleep PATH…`. As `/bin/sh -c 'web …'` it is all the shell that health checks need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;

unsafe extern "C" {
    safe fn signal(number: i32, handler: usize) -> usize;
    safe fn _exit(code: i32) -> !;
}

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

extern "C" fn leave(_: i32) {
    _exit(0);
}

fn main() {
    // The first process of a container has no default handlers: without these, stopping it would take the whole grace.
    for number in [SIGINT, SIGTERM] {
        signal(number, leave as extern "C" fn(i32) as usize);
    }
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, line] = args.as_slice()
        && flag == "-c"
    {
        args = line.split_whitespace().skip(1).map(String::from).collect();
    }
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        None | Some("serve") => serve(rest.first().map_or("80", String::as_str)),
        Some("sleep") => sleep(),
        Some("say") => println!("{}", rest.join(" ")),
        Some("fail") => {
            eprintln!("failing as asked");
            std::process::exit(rest.first().and_then(|code| code.parse().ok()).unwrap_or(1));
        }
        Some("cat") => cat(),
        Some("lines") => {
            for line in 1..=rest.first().and_then(|count| count.parse().ok()).unwrap_or(1) {
                println!("line {line}");
            }
            sleep();
        }
        Some("look") => look(rest),
        Some("look-and-sleep") => {
            look(rest);
            sleep();
        }
        Some(other) => {
            eprintln!("unknown verb {other}");
            std::process::exit(127);
        }
    }
}

fn sleep() {
    loop {
        std::thread::park();
    }
}

fn cat() {
    let mut bytes = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut bytes);
    let _ = std::io::stdout().write_all(&bytes);
}

/// Longest content that is printed; of more, only how much it is.
const PRINTED_MAX: usize = 1000;

/// Prints a line for each file: path, owner, mode, file system, content. What cannot be read ends it.
fn look(paths: &[String]) {
    for path in paths {
        let read = std::fs::metadata(path).and_then(|meta| Ok((meta, std::fs::read_to_string(path)?)));
        match read {
            Ok((meta, text)) => {
                let mode = meta.mode() & 0o7777;
                let text = if text.len() > PRINTED_MAX { format!("({} bytes)", text.len()) } else { text };
                println!("{path} {}:{} {mode:o} {} {}", meta.uid(), meta.gid(), file_system(path), text.trim_end());
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                std::process::exit(1);
            }
        }
    }
}

/// The file system that a path is on: that of the mount with the longest way in common, the last of several.
fn file_system(path: &str) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = (0, String::new());
    for line in mounts.lines() {
        let (Some(point), Some((_, rest))) = (line.split(' ').nth(4), line.split_once(" - ")) else { continue };
        let is_in =
            path.strip_prefix(point).is_some_and(|rest| point == "/" || rest.is_empty() || rest.starts_with('/'));
        if is_in && point.len() >= found.0 {
            found = (point.len(), rest.split(' ').next().unwrap_or_default().to_string());
        }
    }
    found.1
}

fn serve(port: &str) {
    let listener = match TcpListener::bind(format!("0.0.0.0:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on port {port}: {error}");
            std::process::exit(1);
        }
    };
    println!("web {} listens on port {port}", version());
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
}

fn version() -> String {
    std::env::var("VERSION").unwrap_or_else(|_| "?".into())
}

fn answer(mut stream: TcpStream) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut head = BufReader::new(copy).lines().map_while(Result::ok);
    let request = head.next().unwrap_or_default();
    while head.next().is_some_and(|line| !line.is_empty()) {}
    println!("{request}");
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let body = format!("web {} in {}\n", version(), name.trim());
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}
