// A goroutine for every connection, as `overfall bench --peer go` builds and starts it.
// Usage: go APP WORK ADDR: the app hello, echo or http, and the CPU to burn for each request such as 1ms.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

func hello(c net.Conn, work time.Duration) {
	defer c.Close()
	buffer := make([]byte, 1024)
	if n, err := c.Read(buffer); err != nil || n == 0 {
		return
	}
	burn(work)
	c.Write([]byte("Hello, client!"))
}

func echo(c net.Conn, work time.Duration) {
	defer c.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := c.Read(buffer)
		if err != nil || n == 0 {
			return
		}
		burn(work)
		if _, err := c.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func helloHTTP(work time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		burn(work)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("Hello, client!"))
	})
}

// Burns CPU on the thread's own clock, on which the goroutine stays meanwhile.
func burn(work time.Duration) {
	if work == 0 {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for started := threadCPU(); threadCPU()-started < work; {
	}
}

func threadCPU() time.Duration {
	const threadCPUTime = 3
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadCPUTime, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: go APP WORK ADDR")
		os.Exit(2)
	}
	serve := hello
	if os.Args[1] == "echo" {
		serve = echo
	}
	work, err := time.ParseDuration(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if os.Args[1] == "http" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Args[3], helloHTTP(work)))
		os.Exit(1)
	}
	listener, err := net.Listen("tcp", os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			continue
		}
		go serve(c, work)
	}
}
