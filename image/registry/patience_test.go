package registry

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatience(t *testing.T) {
	size := 10 * int64(len(piece))
	answer := func(conn net.Conn, text string) { io.WriteString(conn, text) }
	for _, tt := range []struct {
		name  string
		serve func(conn net.Conn, body io.Reader)
		fails bool
	}{
		{"slow answer", func(conn net.Conn, body io.Reader) {
			io.Copy(io.Discard, body)
			time.Sleep(longestSilence - time.Second)
			answer(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			time.Sleep(longestSilence - time.Second)
			answer(conn, "k")
		}, false},
		{"slow upload", func(conn net.Conn, body io.Reader) {
			for range 10 {
				io.CopyN(io.Discard, body, int64(len(piece)))
				time.Sleep(longestSilence - time.Second)
			}
			answer(conn, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok")
		}, false},
		{"stopped upload", func(_ net.Conn, body io.Reader) {
			io.CopyN(io.Discard, body, int64(len(piece)))
		}, true},
		{"no answer", func(_ net.Conn, body io.Reader) {
			io.Copy(io.Discard, body)
		}, true},
		{"half an answer", func(conn net.Conn, body io.Reader) {
			io.Copy(io.Discard, body)
			answer(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var serving sync.WaitGroup
				hungUp := make(chan struct{})
				dial := func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					serving.Go(func() {
						defer server.Close()
						req, err := http.ReadRequest(bufio.NewReader(server))
						if err != nil {
							t.Error(err)
							return
						}
						tt.serve(server, req.Body)
						<-hungUp
					})
					return client, nil
				}
				transport := &http.Transport{DialContext: patient(dial)}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://registry/", io.NopCloser(bytes.NewReader(bytes.Repeat(piece, 10))))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = size
				resp, err := transport.RoundTrip(req)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				close(hungUp)
				transport.CloseIdleConnections()
				serving.Wait()
				if (err != nil) != tt.fails {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

var piece = bytes.Repeat([]byte("x"), 64<<10)
