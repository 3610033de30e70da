//! A file service with ranges, uploads and a list.

use std::{fs, io, path::PathBuf};

use overfall::{
    Builder, Handle,
    http::{self, Failure, Files, Request, Response, StatusCode},
};

struct Store {
    directory: PathBuf,
    files: Files,
}

impl Store {
    fn new(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        Ok(Self { files: Files::new(&directory)?, directory })
    }

    fn answer(&self, request: &Request<'_>) -> Result<Response, Failure> {
        match (request.method().as_str(), &request.path_segments()[..]) {
            ("GET" | "HEAD", []) => {
                let names = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name()));
                let names = names.collect::<io::Result<Vec<_>>>()?;
                Ok(names.iter().map(|name| format!("{}\n", name.display())).collect::<String>().into())
            }
            ("PUT", [name]) if !name.starts_with('.') && !name.contains('/') => {
                let part = self.directory.join(format!(".{name}.part"));
                io::copy(&mut request.body(), &mut fs::File::create(&part)?)?;
                fs::rename(part, self.directory.join(name))?;
                Ok(StatusCode::CREATED.into())
            }
            (_, path) => Ok(self.files.answer(request, path)),
        }
    }
}

fn serve(server: Builder, directory: &str) -> Result<Handle, Box<dyn std::error::Error>> {
    let store = Store::new(directory)?;
    Ok(http::serve(server, move |request| store.answer(request))?)
}

#[test]
fn a_file_is_put_listed_and_had_in_parts() {
    let directory = crate::temporary::TempDir::new("store");
    let store = Store::new(directory.path()).expect("a directory");
    let asked = |request: Request<'_>| {
        let response = Response::from(store.answer(&request));
        let body = response.body().expect("it is in memory");
        (response.status_code().as_u16(), String::from_utf8_lossy(body).into_owned())
    };
    let request = |method: &str, uri: &str| Request::builder().method(method).uri(uri);
    assert_eq!(asked(request("PUT", "/a%20b.txt").body("0123456789")).0, 201);
    assert_eq!(asked(request("GET", "/").body("")), (200, "a b.txt\n".to_owned()));
    assert_eq!(asked(request("GET", "/a%20b.txt").body("")), (200, "0123456789".to_owned()));
    let part = request("GET", "/a%20b.txt").header("Range", "bytes=2-4");
    assert_eq!(asked(part.body("")), (206, "234".to_owned()));
    for (method, uri, status) in [
        ("GET", "/none", 404),
        ("GET", "/..%2F..%2Fetc%2Fpasswd", 404),
        ("PUT", "/..%2Fout", 405),
        ("PUT", "/.hidden", 405),
        ("DELETE", "/a%20b.txt", 405),
    ] {
        assert_eq!(asked(request(method, uri).body("")).0, status, "{method} {uri}");
    }
}

#[test]
fn it_serves() {
    let directory = crate::temporary::TempDir::new("served");
    let path = directory.path().to_str().expect("text");
    let handle = serve(crate::support::builder(), path).expect("it serves");
    let put = b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let reply = crate::support::exchange(handle.local_addr(), put).expect("a reply");
    assert!(reply.starts_with(b"HTTP/1.1 201 Created\r\n"));
    let reply = crate::support::exchange(handle.local_addr(), b"GET /a HTTP/1.0\r\n\r\n").expect("a reply");
    assert!(reply.ends_with(b"\r\n\r\nhello"));
}
