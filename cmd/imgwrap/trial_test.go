package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// fakeEngine is a container engine whose container is itself. The variable APP
// says what the app in it does:
//
//	job     sends spans, and ends
//	server  sends spans when it is asked on APP_PORT, and when it is stopped
//	failing says that telemetry is off, and ends
//
// Its images expose APP_PORT. ENGINE_PID is a file for its process.
func fakeEngine() {
	if err := engineCommand(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Trying to do it...\nError:", err)
		os.Exit(125)
	}
}

func engineCommand(args []string) error {
	switch command := args[0]; command {
	case "pull":
		if image := args[len(args)-1]; strings.Contains(image, "unpullable") {
			return fmt.Errorf("no such image: %s", image)
		}
		fmt.Println("pulling\n0123456789ab")
		return nil
	case "image":
		ports := os.Getenv("APP_PORT")
		fmt.Printf("{%q:{},\"53/udp\":{}}\n", ports+"/tcp")
		return nil
	case "stop":
		b, err := os.ReadFile(os.Getenv("ENGINE_PID"))
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(string(b))
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGTERM)
	case "run":
		return runApp(args)
	default:
		return fmt.Errorf("no command %s", command)
	}
}

func runApp(args []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if err := os.WriteFile(os.Getenv("ENGINE_PID"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if image := args[len(args)-1]; image != "0123456789ab" || !slices.Contains(args, "--network=host") {
		return fmt.Errorf("unexpected %q", args)
	}
	endpoint := ""
	for _, arg := range args {
		if url, ok := strings.CutPrefix(arg, "--env=OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="); ok {
			endpoint = url
		}
	}
	switch os.Getenv("APP") {
	case "job":
		return sendSpans(endpoint, "job", 2)
	case "server":
		http.HandleFunc("/orders", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			if err := sendSpans(endpoint, "web", 3); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
		go http.ListenAndServe("127.0.0.1:"+os.Getenv("APP_PORT"), nil) //nolint:errcheck // the test sees it
		<-stop
		return sendSpans(endpoint, "end", 1)
	case "failing":
		fmt.Fprintln(os.Stderr, "imgwrap: telemetry is off: it does not want to\nStarting.\nDone.")
	}
	return nil
}

func sendSpans(endpoint, scope string, n int) error {
	spans := &tracepb.ScopeSpans{Scope: &commonpb.InstrumentationScope{Name: "opentelemetry.instrumentation." + scope}}
	for range n {
		spans.Spans = append(spans.Spans, &tracepb.Span{Name: "GET"})
	}
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{spans}}}})
	if err != nil {
		return err
	}
	resp, err := http.Post(endpoint, "application/x-protobuf", bytes.NewReader(b))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func TestEngineNetwork(t *testing.T) {
	for _, tt := range []struct {
		goos   string
		docker bool
		port   int
		args   string
		host   string
	}{
		{"linux", false, 8000, "--network=host", "127.0.0.1"},
		{"linux", true, 0, "--network=host", "127.0.0.1"},
		{"darwin", false, 8000, "--publish=127.0.0.1:8000:8000", "host.containers.internal"},
		{"darwin", false, 0, "", "host.containers.internal"},
		{"windows", true, 8000, "--add-host=host.docker.internal:host-gateway --publish=127.0.0.1:8000:8000", "host.docker.internal"},
	} {
		args, host := engine{docker: tt.docker}.network(tt.goos, tt.port)
		if got := strings.Join(args, " "); got != tt.args || host != tt.host {
			t.Errorf("%+v: got %s and %s", tt, got, host)
		}
	}
}

func TestTail(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"one\ntwo\n\n", "two"},
		{"one\nimgwrap: telemetry is off: why\ntwo\n", "imgwrap: telemetry is off: why"},
		{"opentelemetry-instrument: app: command not found", "opentelemetry-instrument: app: command not found"},
		{"imgwrap: long ago\n" + strings.Repeat("x", tailSize), strings.Repeat("x", tailSize)},
	} {
		var tail tail
		for _, b := range []byte(tt.text) {
			if _, err := tail.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if got := tail.telling(); got != tt.want {
			t.Errorf("%.40q: got %.40q", tt.text, got)
		}
	}
}
