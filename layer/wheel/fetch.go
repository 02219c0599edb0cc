package wheel

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// DefaultIndex is the Python Package Index.
const DefaultIndex = "https://pypi.org/simple"

const (
	defaultJobs = 4
	attempts    = 5
	// maxPage is the size of the largest page of an index that is read.
	maxPage = 64 << 20
	// maxWait is the longest time an index may ask to wait for.
	maxWait = time.Minute
	// stall is how long a connection may give nothing.
	stall = time.Minute
)

// Ref names one wheel and says what is known about it.
type Ref struct {
	Name   string // of the distribution, in any spelling
	File   string // name of the wheel file
	SHA256 string // hexadecimal
	Size   int64  // bytes
}

// Fetcher gets wheels from a package index with the simple repository API
// (PEP 503 and PEP 691), through a cache.
type Fetcher struct {
	// CacheDir is the directory of a [layer.Cache] that holds the wheels.
	CacheDir string
	// Index is the address of the index as pip takes it, so with the "/simple"
	// of [DefaultIndex]. If empty, it is that in the environment variable
	// PIP_INDEX_URL, else [DefaultIndex]. User and password in it are sent to
	// this host only, and are never part of an error.
	Index string
	// Offline says to take wheels from the cache only.
	Offline bool
	// Client is [http.DefaultClient] if nil.
	Client *http.Client
	// Jobs is the number of concurrent requests, 4 if zero.
	Jobs int
	// Progress, if set, is told how many bytes of the wheels that weren't in
	// the cache have been fetched, after each of them. Calls don't overlap.
	Progress func(done, total int64)

	// For tests; zero takes the real ones.
	wait  func(context.Context, time.Duration) error
	stall time.Duration
}

// MissingError says that wheels aren't in the cache and may not be fetched.
type MissingError struct {
	Refs []Ref
	Dir  string // of the cache
}

func (e *MissingError) Error() string {
	more := ""
	if n := len(e.Refs) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("offline, and wheel %s%s not in cache %s: run once without --offline to fill it", e.Refs[0].File, more, e.Dir)
}

// Fetch returns the cache's files of the wheels, by sha256. Every one of them
// has the sha256 and size that its Ref says. What has been fetched stays in
// the cache, also if another wheel fails, so that the next call resumes.
func (f *Fetcher) Fetch(ctx context.Context, refs []Ref) (map[string]string, error) {
	cache := f.cache()
	paths := make(map[string]string, len(refs))
	var missing []Ref
	var total int64
	for _, ref := range refs {
		digest, err := v1.NewHash("sha256:" + ref.SHA256)
		if err != nil {
			return nil, fmt.Errorf("fetching wheel %s: %w", ref.File, err)
		}
		if _, ok := paths[ref.SHA256]; ok {
			continue
		}
		paths[ref.SHA256] = cache.Path(digest)
		_, err = cache.Verify(digest, ref.Size)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, ref)
			total += ref.Size
		} else if err != nil {
			return nil, fmt.Errorf("fetching wheel %s: %w", ref.File, err)
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	if f.Offline {
		return nil, &MissingError{missing, f.CacheDir}
	}
	index, err := f.index()
	if err != nil {
		return nil, err
	}

	var mu sync.Mutex
	var done int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(f.Jobs, defaultJobs))
	for _, ref := range missing {
		g.Go(func() error {
			if err := f.fetch(ctx, index, ref); err != nil {
				return fmt.Errorf("fetching wheel %s from %s: %w", ref.File, index.url.Host, err)
			}
			mu.Lock()
			defer mu.Unlock()
			done += ref.Size
			if f.Progress != nil {
				f.Progress(done, total)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return paths, nil
}

func (f *Fetcher) cache() *layer.Cache { return &layer.Cache{Dir: f.CacheDir} }

// index is the address of an index without the user and password in it.
type index struct {
	url  *url.URL
	user *url.Userinfo
}

func (f *Fetcher) index() (*index, error) {
	address, origin := f.Index, "package index"
	if address == "" {
		address, origin = os.Getenv("PIP_INDEX_URL"), "PIP_INDEX_URL"
	}
	if address == "" {
		address = DefaultIndex
	}
	u, err := url.Parse(address)
	// The parser's error has parts of the address, maybe of a password.
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("%s is not an http or https address", origin)
	}
	user := u.User
	u.User = nil
	return &index{u, user}, nil
}

// fetch puts one wheel into the cache.
func (f *Fetcher) fetch(ctx context.Context, index *index, ref Ref) error {
	var file *url.URL
	err := f.retry(ctx, func(ctx context.Context) (err error) {
		file, err = f.find(ctx, index, ref)
		return err
	})
	if err != nil {
		return err
	}
	return f.retry(ctx, func(ctx context.Context) error {
		return f.download(ctx, index, file, ref)
	})
}

// find looks the wheel up on its project's page.
func (f *Fetcher) find(ctx context.Context, index *index, ref Ref) (*url.URL, error) {
	name := pep508.Normalize(ref.Name)
	res, err := f.get(ctx, index, index.url.JoinPath(name, "/"), accept)
	if err != nil {
		return nil, fmt.Errorf("page of %s: %w", name, err)
	}
	defer res.Body.Close()
	body := &limited{r: res.Body, left: maxPage}
	found, ok, base, err := parseProject(res.Header.Get("Content-Type"), body, ref.File)
	switch {
	case body.err != nil && body.err != io.EOF:
		return nil, fmt.Errorf("page of %s: %w", name, body.err)
	case err != nil:
		return nil, fmt.Errorf("page of %s: %w", name, err)
	case !ok:
		return nil, fmt.Errorf("page of %s doesn't list it", name)
	case found.sha256 != "" && !strings.EqualFold(found.sha256, ref.SHA256):
		return nil, fmt.Errorf("page of %s has another file of this name: sha256 %s, expected %s", name, found.sha256, ref.SHA256)
	}
	u, err := resolve(res.Request.URL, base, found.url)
	if err != nil {
		return nil, fmt.Errorf("page of %s: unusable link to it", name)
	}
	return u, nil
}

func (f *Fetcher) download(ctx context.Context, index *index, file *url.URL, ref Ref) error {
	res, err := f.get(ctx, index, file, "")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	digest := v1.Hash{Algorithm: "sha256", Hex: ref.SHA256}
	body := &limited{r: res.Body, left: ref.Size + 1}
	err = f.cache().Put(ctx, digest, ref.Size, body)
	if body.err == io.EOF && body.left > 1 {
		// Without a Content-Length, a cut connection looks like the end.
		return &temporaryError{err: err}
	}
	return err
}

// get returns a response with status 200. What a later try could change is a
// temporaryError, of the body's reader too.
func (f *Fetcher) get(ctx context.Context, index *index, u *url.URL, accept string) (*http.Response, error) {
	user := u.User
	if user == nil && u.Scheme == index.url.Scheme && u.Host == index.url.Host {
		user = index.user
	}
	clean := *u
	clean.User = nil
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, clean.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, errors.New("malformed address")
	}
	req.Header.Set("User-Agent", "imgwrap")
	if accept != "" {
		req.Header.Set("Accept", accept)
	} else {
		// The bytes of a wheel are wanted, whatever else a proxy would like.
		req.Header.Set("Accept-Encoding", "identity")
	}
	if user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}

	client := f.Client
	if client == nil {
		client = http.DefaultClient
	}
	body := &body{cancel: cancel, ctx: ctx, stall: cmp.Or(f.stall, stall)}
	body.timer = time.AfterFunc(body.stall, func() {
		cancel(fmt.Errorf("nothing received for %s", body.stall))
	})
	res, err := client.Do(req)
	if err != nil {
		err = body.fail(err)
		body.stop()
		return nil, err
	}
	body.r = res.Body
	res.Body = body
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	res.Body.Close()
	err = fmt.Errorf("%s: HTTP status %s", clean.Host, res.Status)
	switch {
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusRequestTimeout, res.StatusCode >= 500:
		return nil, &temporaryError{err, retryAfter(res.Header.Get("Retry-After"))}
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("%w (user and password are taken from the address of the index)", err)
	}
	return nil, err
}

// body is a response's body that ends the request when nothing comes for a
// while, or when it is closed.
type body struct {
	r      io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = b.fail(err)
	}
	return n, err
}

func (b *body) Close() error {
	defer b.stop()
	return b.r.Close()
}

func (b *body) stop() {
	b.timer.Stop()
	b.cancel(nil)
}

// fail makes an error of the request fit to be shown and to be retried.
func (b *body) fail(err error) error {
	if cause := context.Cause(b.ctx); cause != nil {
		err = cause
	}
	// The address in it may have a signature or token as its query.
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	var certErr *tls.CertificateVerificationError
	if errors.As(err, &certErr) {
		return err
	}
	return &temporaryError{err: err}
}

// limited reads at most left bytes and remembers how reading ended.
type limited struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		l.err = errors.New("response too large")
		return 0, l.err
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	l.err = err
	return n, err
}

// temporaryError is one that another try may not meet.
type temporaryError struct {
	err   error
	after time.Duration // that the server asks to wait; zero if it doesn't
}

func (e *temporaryError) Error() string { return e.err.Error() }
func (e *temporaryError) Unwrap() error { return e.err }

// retryAfter reads the header's two forms (RFC 9110, 10.2.3). Zero if absent.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 {
		return min(time.Duration(min(seconds, 3600))*time.Second, maxWait)
	}
	if t, err := http.ParseTime(header); err == nil {
		return min(max(time.Until(t), 0), maxWait)
	}
	return 0
}

// retry calls try until it succeeds, fails for good, or has failed too often.
func (f *Fetcher) retry(ctx context.Context, try func(context.Context) error) error {
	wait := f.wait
	if wait == nil {
		wait = sleep
	}
	for n := 0; ; n++ {
		err := try(ctx)
		var temporary *temporaryError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.As(err, &temporary):
			return err
		case n == attempts-1:
			return fmt.Errorf("%w (tried %d times)", err, attempts)
		}
		if err := wait(ctx, max(temporary.after, 500*time.Millisecond<<n)); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
