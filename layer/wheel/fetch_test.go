package wheel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgwrap/imgwrap/layer/wheel/wheeltest"
)

var demoWheel = wheeltest.Make("demo", "1.0", entry("demo.py", strings.Repeat("print()\n", 1000)))

func ref(file string, blob []byte) Ref {
	name, _, _ := strings.Cut(file, "-")
	return Ref{name, file, wheeltest.SHA256(blob), int64(len(blob))}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/simple"
}

// fetcher returns a Fetcher that doesn't wait, and the waits it was asked for.
func fetcher(t *testing.T, index string) (*Fetcher, *waits) {
	t.Helper()
	w := new(waits)
	return &Fetcher{CacheDir: t.TempDir(), Index: index, wait: w.wait}, w
}

type waits struct {
	mu   sync.Mutex
	list []time.Duration
}

func (w *waits) wait(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, d)
	return ctx.Err()
}

// cached lists the files in the cache, temporary ones included.
func cached(t *testing.T, f *Fetcher) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(f.CacheDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func wantFetched(t *testing.T, f *Fetcher, ref Ref, blob []byte) {
	t.Helper()
	paths, err := f.Fetch(t.Context(), []Ref{ref})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(paths[ref.SHA256]); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(blob))
	}
}

func wantError(t *testing.T, f *Fetcher, ref Ref, want string) {
	t.Helper()
	_, err := f.Fetch(t.Context(), []Ref{ref})
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ref.File) {
		t.Errorf("error %v\nwant %q", err, want)
	}
	if left := cached(t, f); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestFetch(t *testing.T) {
	for _, html := range []bool{false, true} {
		t.Run(fmt.Sprintf("html=%t", html), func(t *testing.T) {
			wheels := make(map[string][]byte)
			var refs []Ref
			var total int64
			for i := range 20 {
				name := fmt.Sprintf("Demo_Pkg.%d", i)
				file := name + "-1.0-py3-none-any.whl"
				wheels[file] = wheeltest.Make(name, "1.0")
				refs = append(refs, ref(file, wheels[file]))
				total += int64(len(wheels[file]))
			}
			index := &wheeltest.Index{Wheels: wheels, HTML: html}
			var requests atomic.Int64
			f, _ := fetcher(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				index.ServeHTTP(w, r)
			})))
			var progress []int64
			f.Progress = func(done, of int64) {
				if of != total {
					t.Errorf("progress of %d bytes, want %d", of, total)
				}
				progress = append(progress, done)
			}
			paths, err := f.Fetch(t.Context(), append(refs, refs[0]))
			if err != nil {
				t.Fatal(err)
			}
			for _, ref := range refs {
				got, err := os.ReadFile(paths[ref.SHA256])
				if err != nil || !bytes.Equal(got, wheels[ref.File]) {
					t.Errorf("%s: %d bytes, %v", ref.File, len(got), err)
				}
			}
			if got := requests.Load(); got != 40 {
				t.Errorf("%d requests, want 40", got)
			}
			if len(progress) != 20 || !slices.IsSorted(progress) || progress[19] != total {
				t.Errorf("progress %v, want 20 steps to %d", progress, total)
			}

			f.Offline = true
			again, err := f.Fetch(t.Context(), refs)
			if err != nil || len(again) != len(refs) || requests.Load() != 40 {
				t.Errorf("from the cache: %d wheels, %v, %d requests in all", len(again), err, requests.Load())
			}
		})
	}
}

func TestFetchOffline(t *testing.T) {
	f, _ := fetcher(t, "http://index.invalid/simple")
	f.Offline = true
	first, second := ref(demoFile, demoWheel), ref("other-1.0-py3-none-any.whl", nil)
	_, err := f.Fetch(t.Context(), []Ref{first, second})
	var missing *MissingError
	if !errors.As(err, &missing) || len(missing.Refs) != 2 {
		t.Fatalf("error %v, want one of two missing wheels", err)
	}
	for _, want := range []string{demoFile + " and 1 more", f.CacheDir, "run once without --offline"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q, want %q in it", err, want)
		}
	}
}

func TestFetchDamagedCache(t *testing.T) {
	f, _ := fetcher(t, serve(t, &wheeltest.Index{Wheels: map[string][]byte{demoFile: demoWheel}}))
	wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
	if err := os.WriteFile(cached(t, f)[0], bytes.Replace(demoWheel, []byte("demo"), []byte("evil"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
}

// page answers with a project's page that names the demo wheel, and everything
// else with file.
func page(body, contentType string, file http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/simple/demo/" {
			file(w, r)
			return
		}
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, body)
	})
}

func jsonPage(url string) string {
	return `{"meta": {"api-version": "1.3"}, "files": [{"filename": "` + demoFile + `", "url": "` + url + `", "hashes": {}}]}`
}

func good(w http.ResponseWriter, _ *http.Request) { w.Write(demoWheel) }

func TestFetchPages(t *testing.T) {
	sum := wheeltest.SHA256(demoWheel)
	for name, tt := range map[string]struct {
		body, contentType string
		want              string // error; none if empty
	}{
		"JSON":                {jsonPage("/f/demo.whl"), typeJSON, ""},
		"JSON, charset":       {jsonPage("../demo.whl"), typeJSON + "; charset=utf-8", ""},
		"JSON, other version": {`{"meta": {"api-version": "2.0"}}`, typeJSON, `page of demo: unsupported version "2.0" of the simple API`},
		"JSON, broken":        {`{"meta": `, typeJSON, "page of demo: unexpected EOF"},
		"JSON, other file":    {strings.Replace(jsonPage("/"), "1.0", "1.1", -1), typeJSON, "page of demo doesn't list it"},
		"JSON, other hash":    {strings.Replace(jsonPage("/"), "{}", `{"sha256": "beef"}`, 1), typeJSON, "page of demo has another file of this name: sha256 beef, expected " + sum},
		"JSON, no link":       {jsonPage("file:///etc/passwd"), typeJSON, "page of demo: unusable link to it"},
		"HTML":                {`<a href="/demo.whl#sha256=` + sum + `">` + demoFile + `</a>`, "text/html", ""},
		"HTML, no hash":       {`<a href="/demo.whl">` + demoFile + `</a>`, typeHTML, ""},
		"HTML, MD5":           {`<a href="/demo.whl#md5=beef">` + demoFile + `</a>`, typeHTML, ""},
		"HTML, two hashes":    {`<a href="/demo.whl#md5=beef&amp;sha256=` + sum + `">` + demoFile + `</a>`, typeHTML, ""},
		"HTML, as some write it": {"<HTML><BASE HREF=\"/mirror/\"><BODY><A\n CLASS=x HREF='demo.whl' data-requires-python=\"&gt;=3\"\n>\n <b>" +
			strings.Replace(demoFile, "-", "&#45;", 1) + "</b>\n</A></BODY>", "text/html; charset=utf-8", ""},
		"HTML, other hash":   {`<a href="/demo.whl#sha256=beef">` + demoFile + `</a>`, "text/html", "sha256 beef, expected " + sum},
		"HTML, other file":   {`<a href="/` + demoFile + `">other-1.0-py3-none-any.whl</a> ` + demoFile, "text/html", "page of demo doesn't list it"},
		"HTML, in a comment": {`<!-- <a href="/demo.whl">` + demoFile + `</a> -->`, "text/html", "page of demo doesn't list it"},
		"HTML, first of two": {`<a href="/demo.whl">` + demoFile + `</a><a href="file:///">` + demoFile + `</a>`, "text/html", ""},
		"HTML, unclosed":     {`<a href="/demo.whl">` + demoFile, "text/html", "page of demo doesn't list it"},
		"something else":     {"hello", "text/plain", "page of demo: unsupported content type text/plain"},
		"malformed type":     {"hello", ";", `page of demo: content type ";"`},
	} {
		t.Run(name, func(t *testing.T) {
			f, waits := fetcher(t, serve(t, page(tt.body, tt.contentType, good)))
			if tt.want == "" {
				wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
			} else {
				wantError(t, f, ref(demoFile, demoWheel), tt.want)
			}
			if waits.list != nil {
				t.Errorf("tried again after %v", waits.list)
			}
		})
	}
}

func TestFetchRefuses(t *testing.T) {
	damaged := bytes.Replace(demoWheel, []byte("demo"), []byte("evil"), 1)
	for name, tt := range map[string]struct {
		file http.HandlerFunc
		want string
	}{
		"other content": {func(w http.ResponseWriter, _ *http.Request) {
			w.Write(damaged)
		}, "expected sha256:" + wheeltest.SHA256(demoWheel) + ", got sha256:" + wheeltest.SHA256(damaged)},
		"too long": {func(w http.ResponseWriter, _ *http.Request) {
			w.Write(demoWheel)
			w.Write(demoWheel)
		}, fmt.Sprintf("expected %d bytes, got more", len(demoWheel))},
		"not found":    {http.NotFound, "HTTP status 404"},
		"unauthorized": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "HTTP status 401 Unauthorized (user and password are taken from the address of the index)"},
	} {
		t.Run(name, func(t *testing.T) {
			f, waits := fetcher(t, serve(t, page(jsonPage("/f"), typeJSON, tt.file)))
			wantError(t, f, ref(demoFile, demoWheel), tt.want)
			if waits.list != nil {
				t.Errorf("tried again after %v", waits.list)
			}
		})
	}
	t.Run("no such project", func(t *testing.T) {
		f, _ := fetcher(t, serve(t, &wheeltest.Index{}))
		wantError(t, f, ref(demoFile, demoWheel), "page of demo: 127.0.0.1:")
	})
	t.Run("bad hash", func(t *testing.T) {
		f, _ := fetcher(t, "http://index.invalid")
		wantError(t, f, Ref{"demo", demoFile, "../../evil", 1}, "hash")
	})
}

// Each of these is met twice by the page and twice by the wheel, then it goes
// well; or it never does.
func TestFetchRetries(t *testing.T) {
	const second = time.Second
	half := func(w http.ResponseWriter) {
		w.Write(demoWheel[:len(demoWheel)/2])
		w.(http.Flusher).Flush()
	}
	for name, tt := range map[string]struct {
		trouble http.HandlerFunc
		waits   []time.Duration
		want    string
	}{
		"500": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
			[]time.Duration{second / 2, second, 2 * second, 4 * second}, "HTTP status 500"},
		"429": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
		}, []time.Duration{7 * second, 7 * second, 7 * second, 7 * second}, "HTTP status 429"},
		"long wait": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "99999999999")
			w.WriteHeader(503)
		}, []time.Duration{maxWait, maxWait, maxWait, maxWait}, "HTTP status 503"},
		"cut before": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, nil, "EOF"},
		"cut inside": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typeHTML)
			half(w)
			panic(http.ErrAbortHandler)
		}, nil, "unexpected EOF"},
		"short of its length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typeHTML)
			w.Header().Set("Content-Length", fmt.Sprint(len(demoWheel)))
			half(w)
		}, nil, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waits := tt.waits
			if waits == nil {
				waits = []time.Duration{second / 2, second, 2 * second, 4 * second}
			}
			for _, failures := range []int{2, attempts} {
				var mu sync.Mutex
				met := make(map[string]int)
				ok := page(jsonPage("/f"), typeJSON, good)
				f, waited := fetcher(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					met[r.URL.Path]++
					n := met[r.URL.Path]
					mu.Unlock()
					if n <= failures {
						tt.trouble(w, r)
						return
					}
					ok.ServeHTTP(w, r)
				})))
				// A connection that is used again makes the transport try again.
				f.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				if failures < attempts {
					wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
					if want := slices.Concat(waits[:2], waits[:2]); !slices.Equal(waited.list, want) {
						t.Errorf("waited %v, want %v", waited.list, want)
					}
				} else {
					wantError(t, f, ref(demoFile, demoWheel), tt.want)
					wantError(t, f, ref(demoFile, demoWheel), fmt.Sprintf("(tried %d times)", attempts))
				}
			}
		})
	}

	t.Run("stalled", func(t *testing.T) {
		f, waited := fetcher(t, serve(t, page(jsonPage("/f"), typeJSON, func(w http.ResponseWriter, r *http.Request) {
			half(w)
			<-r.Context().Done()
		})))
		f.stall = 20 * time.Millisecond
		wantError(t, f, ref(demoFile, demoWheel), "nothing received for 20ms (tried 5 times)")
		if len(waited.list) < attempts-1 {
			t.Errorf("waited %v, want %d times", waited.list, attempts-1)
		}
	})
	t.Run("no length", func(t *testing.T) {
		var met atomic.Int64
		f, waited := fetcher(t, serve(t, page(jsonPage("/f"), typeJSON, func(w http.ResponseWriter, _ *http.Request) {
			half(w)
			if met.Add(1) > 1 {
				w.Write(demoWheel[len(demoWheel)/2:])
			}
		})))
		wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
		if len(waited.list) != 1 {
			t.Errorf("waited %v, want once", waited.list)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                              0,
		"soon":                          0,
		"-1":                            0,
		"3":                             3 * time.Second,
		"86400":                         maxWait,
		"Fri, 31 Dec 1999 23:59:59 GMT": 0,
		"Fri, 31 Dec 2286 23:59:59 GMT": maxWait,
	} {
		if got := retryAfter(header); got != want {
			t.Errorf("retryAfter(%q) = %s, want %s", header, got, want)
		}
	}
}

func TestFetchCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f, _ := fetcher(t, serve(t, page(jsonPage("/f"), typeJSON, func(w http.ResponseWriter, r *http.Request) {
		w.Write(demoWheel[:len(demoWheel)/2])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})))
	if _, err := f.Fetch(ctx, []Ref{ref(demoFile, demoWheel)}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if left := cached(t, f); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestSleep(t *testing.T) {
	if err := sleep(t.Context(), 0); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

// What fails stops the rest, but keeps what is there.
func TestFetchResumes(t *testing.T) {
	other := wheeltest.Make("other", "1.0")
	otherFile := "other-1.0-py3-none-any.whl"
	index := &wheeltest.Index{Wheels: map[string][]byte{demoFile: demoWheel}}
	f, _ := fetcher(t, serve(t, index))
	f.Jobs = 1
	refs := []Ref{ref(demoFile, demoWheel), ref(otherFile, other)}
	if _, err := f.Fetch(t.Context(), refs); err == nil || !strings.Contains(err.Error(), otherFile) {
		t.Fatalf("error %v, want one of %s", err, otherFile)
	}
	if left := cached(t, f); len(left) != 1 {
		t.Errorf("cached %v, want one wheel", left)
	}
	f.Index = serve(t, &wheeltest.Index{Wheels: map[string][]byte{otherFile: other}})
	if _, err := f.Fetch(t.Context(), refs); err != nil {
		t.Error(err)
	}
}

func TestFetchCredentials(t *testing.T) {
	seen := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		seen <- "elsewhere " + user + ":" + password
		w.WriteHeader(http.StatusForbidden)
	}))
	defer elsewhere.Close()
	var link atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		seen <- r.URL.Path + " " + user + ":" + password
		page(jsonPage(link.Load().(string)), typeJSON, good).ServeHTTP(w, r)
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	index := "http://us%40er:se%2Fcret@" + host + "/simple"

	f, _ := fetcher(t, index)
	link.Store("/f")
	wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
	for _, want := range []string{"/simple/demo/ us@er:se/cret", "/f us@er:se/cret"} {
		if got := <-seen; got != want {
			t.Errorf("request %q, want %q", got, want)
		}
	}

	// Another host gets what its own address has, and nothing else.
	for address, want := range map[string]string{
		elsewhere.URL + "/f?token=secret":                                            "elsewhere :",
		"http://other:secret@" + strings.TrimPrefix(elsewhere.URL, "http://") + "/f": "elsewhere other:secret",
		// Nobody listens there.
		"http://other:secret@127.0.0.1:1/f?token=secret": "",
	} {
		f, _ := fetcher(t, index)
		link.Store(address)
		_, err := f.Fetch(t.Context(), []Ref{ref(demoFile, demoWheel)})
		if err == nil {
			t.Fatal("no error")
		}
		for _, secret := range []string{"secret", "se%2Fcret", "se/cret", "us%40er", "us@er", "other"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error shows %q: %v", secret, err)
			}
		}
		<-seen
		if want == "" {
			continue
		}
		if got := <-seen; got != want {
			t.Errorf("request %q, want %q", got, want)
		}
	}

	for _, index := range []string{"http://user:secret@ho st/", "http://user:sec%ret@host/", "user:secret@host/simple", "file:///secret"} {
		t.Setenv("PIP_INDEX_URL", index)
		f, _ := fetcher(t, "")
		_, err := f.Fetch(t.Context(), []Ref{ref(demoFile, demoWheel)})
		if want := "PIP_INDEX_URL is not an http or https address"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	link.Store("/f")
	t.Setenv("PIP_INDEX_URL", index)
	f, _ = fetcher(t, "")
	wantFetched(t, f, ref(demoFile, demoWheel), demoWheel)
}

func TestFetchUntrustedCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(&wheeltest.Index{})
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	f, waited := fetcher(t, s.URL+"/simple")
	wantError(t, f, ref(demoFile, demoWheel), "certificate")
	if waited.list != nil {
		t.Errorf("tried again after %v", waited.list)
	}
}

func FuzzParseProject(f *testing.F) {
	f.Add(typeJSON, jsonPage("/f"))
	f.Add("text/html", `<base href="/x/"><a href="f#sha256=beef">`+demoFile+`</a>`)
	f.Fuzz(func(t *testing.T, contentType, body string) {
		found, ok, _, err := parseProject(contentType, strings.NewReader(body), demoFile)
		if (err != nil || !ok) && found != (link{}) {
			t.Errorf("found %v with ok %t and error %v", found, ok, err)
		}
	})
}
