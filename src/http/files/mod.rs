//! Files over HTTP: which response a file makes. It knows neither the function that asks for it nor how it is
//! sent.

mod conditions;
mod root;

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::SystemTime,
};

use http::{HeaderMap, Method, StatusCode, header};

use self::{
    conditions::{Validators, Verdict, verdict},
    root::Root,
};
use super::{
    request::Request,
    response::{Body, Response},
    sending::Sending,
};

/// What a directory is answered with.
const INDEX: &str = "index.html";
/// A file up to this size is read at once, and sent together with its head.
const SMALL: u64 = 64 * 1024;

/// The files below a directory, to answer requests with.
///
/// `GET` and `HEAD` are answered, with `Last-Modified` and `ETag`; `If-Match`, `If-Unmodified-Since`,
/// `If-None-Match`, `If-Modified-Since` and `If-Range` are heeded, and one range is given as 206 or told 416
/// (RFC 9110, sections 13 and 14; several ranges are answered with all of the file). A directory is answered
/// with its `index.html`, and redirected to where its path ends in a slash. What is no file, or not there, is
/// 404, and nothing outside the directory is ever opened, whatever links or `..` lead there: the kernel sees to
/// that (`RESOLVE_BENEATH` of openat2(2)).
///
/// Files whose names begin with a dot are files as well, and a name that is no UTF-8 cannot be asked for.
///
/// A file is sent by sendfile(2), as its client takes it, so that a slow client costs a descriptor and neither
/// memory nor a worker.
///
/// ```no_run
/// use overfall::{Server, http::{self, Files, StatusCode}};
///
/// let files = Files::new("public")?;
/// let server = Server::builder().bind("127.0.0.1:8888");
/// let handle = http::serve(server, move |request| match &request.path_segments()[..] {
///     ["static", path @ ..] => Ok(files.answer(request, path)),
///     _ => Err(StatusCode::NOT_FOUND),
/// })?;
/// # handle.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Files(Root);

impl Files {
    /// Those below this directory, which is opened now.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or is no directory.
    pub fn new(directory: impl AsRef<Path>) -> io::Result<Self> {
        Root::open(directory.as_ref()).map(Self)
    }

    /// The answer to a request for the file of this path, segment by segment, such as
    /// [`Request::path_segments`] gives them, or a part of those.
    pub fn answer(&self, request: &Request<'_>, path: &[&str]) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Response::from(StatusCode::METHOD_NOT_ALLOWED).header(header::ALLOW, "GET, HEAD");
        }
        self.find(request, path).unwrap_or_else(|error| refusal(&error).into())
    }

    fn find(&self, request: &Request<'_>, path: &[&str]) -> io::Result<Response> {
        let (path, is_directory) = match path {
            [path @ .., ""] => (path, true),
            // All of it may be below another path.
            [] if !request.uri().path().ends_with('/') => return Ok(redirect(request)),
            path => (path, path.is_empty()),
        };
        let path: Vec<&str> = path.iter().copied().chain(is_directory.then_some(INDEX)).collect();
        let file = self.0.find(&path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() && !is_directory {
            return Ok(redirect(request));
        }
        if !metadata.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        answer(request.method(), request.headers(), path.last().unwrap_or(&""), file, &metadata)
    }
}

/// What a client is told whose file cannot be had.
fn refusal(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            StatusCode::NOT_FOUND
        }
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => {
            tracing::error!(%error, "a file cannot be served");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// To where relative links lead where they are meant to.
fn redirect(request: &Request<'_>) -> Response {
    let path = request.uri().path();
    if path.starts_with("//") {
        // It would be the name of another host.
        return StatusCode::NOT_FOUND.into();
    }
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    Response::from(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, format!("{path}/{query}"))
}

fn answer(
    method: &Method,
    headers: &HeaderMap,
    name: &str,
    file: File,
    metadata: &Metadata,
) -> io::Result<Response> {
    let validators =
        Validators::new(metadata.len(), metadata.mtime(), metadata.mtime_nsec(), SystemTime::now());
    let content = |offset, length| -> io::Result<Response> {
        Ok(Response::with(body(file, offset, length)?).header(header::CONTENT_TYPE, content_type(name)))
    };
    let length = metadata.len();
    let response = match verdict(&validators, length, method, headers) {
        Verdict::Whole => content(0, length)?,
        Verdict::Part { first, length: part } => content(first, part)?
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {first}-{}/{length}", first + part - 1)),
        Verdict::NotModified => StatusCode::NOT_MODIFIED.into(),
        Verdict::Failed => StatusCode::PRECONDITION_FAILED.into(),
        Verdict::Unsatisfiable => Response::from(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(header::CONTENT_RANGE, format!("bytes */{length}")),
    };
    Ok(response
        .header(header::ETAG, validators.etag)
        .header(header::LAST_MODIFIED, validators.modified)
        .header(header::ACCEPT_RANGES, "bytes"))
}

fn body(file: File, offset: u64, length: u64) -> io::Result<Body> {
    if length > SMALL {
        return Ok(Body::Later(Some(length), Sending::File { file, offset, left: length }));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Body::Bytes(bytes.into()))
}

/// By the ending of its name.
fn content_type(name: &str) -> String {
    let guess = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    let is_text = guess.starts_with("text/") || guess == "application/javascript";
    if is_text { format!("{guess}; charset=utf-8") } else { guess.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is() {
        for (name, said) in [
            ("a.html", "text/html; charset=utf-8"),
            ("A.TXT", "text/plain; charset=utf-8"),
            ("a.tar.gz", "application/gzip"),
            ("a.png", "image/png"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("README", "application/octet-stream"),
            (".html", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), said, "{name}");
        }
    }
}
