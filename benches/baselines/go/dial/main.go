// A goroutine for every target, for comparison with `overfall dial`: connect, send, read a reply,
// and wait for all. Usage: dial TARGET...
package main

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

type outcome struct {
	address              string
	connect, reply, wait time.Duration
	err                  error
}

func dial(target string, begun time.Time) (o outcome) {
	defer func() { o.wait = time.Since(begun) }()
	start := time.Now()
	c, err := net.DialTimeout("tcp", target, 10*time.Second)
	o.connect = time.Since(start)
	if err != nil {
		o.err = err
		return
	}
	defer c.Close()
	o.address = c.RemoteAddr().String()
	c.SetDeadline(start.Add(10 * time.Second))
	if _, o.err = c.Write([]byte("Hello, server!")); o.err != nil {
		return
	}
	_, o.err = c.Read(make([]byte, 4096))
	o.reply = time.Since(start)
	return
}

func main() {
	begun := time.Now()
	targets := os.Args[1:]
	outcomes := make([]outcome, len(targets))
	var all sync.WaitGroup
	for i, target := range targets {
		all.Add(1)
		go func(i int, target string) {
			defer all.Done()
			outcomes[i] = dial(target, begun)
		}(i, target)
	}
	all.Wait()
	failed := 0
	for i, o := range outcomes {
		state := "ok"
		if o.err != nil {
			state = o.err.Error()
			failed++
		}
		fmt.Println(targets[i], o.address, o.connect, o.reply, o.wait, state)
	}
	if failed > 0 {
		os.Exit(1)
	}
}
