//! Commands that are run in containers: `POST /containers/{id}/exec` and what follows.

use crate::go::omit;

bodies! {
    /// A command that is to be run in a container.
    pub struct ExecCreateRequest {
        /// `user[:group]`; the container's when empty.
        "User" user: String, "omit";
        /// With all rights.
        "Privileged" privileged: bool;
        /// With a terminal.
        "Tty" tty: bool;
        /// First size of the terminal: lines, columns.
        "ConsoleSize" console_size: Vec<u16>, "omit";
        /// Standard input is connected.
        "AttachStdin" attach_stdin: bool;
        /// Standard error is connected.
        "AttachStderr" attach_stderr: bool;
        /// Standard output is connected.
        "AttachStdout" attach_stdout: bool;
        /// Sent by older clients; it says nothing.
        "Detach" detach: bool;
        /// Keys with which a user detaches.
        "DetachKeys" detach_keys: String, "omit";
        /// `NAME=value`, beside the container's own.
        "Env" env: Vec<String>, "omit";
        /// Working directory; the container's when empty.
        "WorkingDir" working_dir: String, "omit";
        /// The command and its arguments.
        "Cmd" cmd: Vec<String>;
    }

    /// The reply to it.
    pub struct ExecCreateResponse {
        /// The command's id.
        "Id" id: String;
    }

    /// `POST /exec/{id}/start`
    pub struct ExecStartRequest {
        /// Nobody is connected to it.
        "Detach" detach: bool;
        /// As when it was created.
        "Tty" tty: bool;
        /// First size of the terminal: lines, columns.
        "ConsoleSize" console_size: Vec<u16>, "omit";
    }

    /// `GET /exec/{id}/json`
    pub struct ExecInspect {
        /// Its id.
        "ID" id: String;
        /// It runs.
        "Running" running: bool;
        /// Exit code; `null` until it has ended.
        "ExitCode" exit_code: Option<i64>;
        /// The process.
        "ProcessConfig" process: ExecProcess;
        /// Standard input is connected.
        "OpenStdin" open_stdin: bool;
        /// Standard error is.
        "OpenStderr" open_stderr: bool;
        /// Standard output is.
        "OpenStdout" open_stdout: bool;
        /// The engine may forget it.
        "CanRemove" can_remove: bool;
        /// The container's id.
        "ContainerID" container_id: String;
        /// Keys with which a user detaches, base64.
        "DetachKeys" detach_keys: String;
        /// Process id on the node.
        "Pid" pid: i64;
    }

    /// The process of a command.
    pub struct ExecProcess {
        /// With a terminal.
        "tty" tty: bool;
        /// The command.
        "entrypoint" entrypoint: String;
        /// Its arguments.
        "arguments" arguments: Vec<String>;
        /// With all rights.
        "privileged" privileged: bool;
        /// Its user.
        "user" user: String, "omit";
    }
}
