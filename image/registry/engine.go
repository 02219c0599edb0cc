package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An engine is a Docker engine, spoken to over its API. Podman's service speaks
// this part of it too.
type engine struct {
	http *http.Client
	base string // URL
	host string // as DOCKER_HOST has it
}

// defaultHost is where an engine listens if DOCKER_HOST does not say.
const defaultHost = "unix:///var/run/docker.sock"

// dial finds the engine that the environment names, as docker does (DOCKER_HOST,
// DOCKER_TLS_VERIFY, DOCKER_CERT_PATH).
func (c *Client) dial(ctx context.Context) (*engine, error) {
	e := &engine{host: os.Getenv("DOCKER_HOST")}
	if e.host == "" {
		e.host = defaultHost
	}
	u, err := url.Parse(e.host)
	if err != nil {
		return nil, fmt.Errorf("DOCKER_HOST is not valid: %w", err)
	}
	t := &http.Transport{}
	switch u.Scheme {
	case "unix":
		socket := u.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
		e.base = "http://docker"
	case "tcp", "http", "https":
		e.base = "http://" + u.Host
		if os.Getenv("DOCKER_TLS_VERIFY") != "" || u.Scheme == "https" {
			e.base = "https://" + u.Host
			if t.TLSClientConfig, err = engineTLS(os.Getenv("DOCKER_CERT_PATH")); err != nil {
				return nil, fmt.Errorf("reading DOCKER_CERT_PATH: %w", err)
			}
		}
	default:
		return nil, &hintError{fmt.Errorf("DOCKER_HOST=%s is not supported", line(e.host)), "use a socket (unix://) or an address (tcp://)"}
	}
	e.http = &http.Client{Transport: t}
	resp, err := e.do(ctx, http.MethodGet, "/_ping", nil)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	if version := resp.Header.Get("Api-Version"); version != "" {
		e.base += "/v" + version
	}
	return e, nil
}

// engineTLS reads the certificates of an engine's client from the directory where
// docker keeps them, ~/.docker if it is "".
func engineTLS(dir string) (*tls.Config, error) {
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(home, ".docker")
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.pem has no certificate")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

// do sends a request. An answer that says no is an error.
func (e *engine) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := e.http.Do(req)
	if err != nil {
		if opErr, ok := errors.AsType[*net.OpError](err); ok && opErr.Op == "dial" {
			return nil, &hintError{
				fmt.Errorf("the Docker engine at %s cannot be reached: %w", e.host, opErr.Err),
				"start it, or set DOCKER_HOST to where it listens",
			}
		}
		return nil, fmt.Errorf("the Docker engine at %s: %w", e.host, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var answer struct{ Message string }
	content, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(content, &answer)
	}
	if err != nil || answer.Message == "" {
		answer.Message = resp.Status
	}
	return nil, &engineError{resp.StatusCode, answer.Message}
}

// An engineError is an engine's answer that says no.
type engineError struct {
	status  int
	message string
}

func (e *engineError) Error() string { return "the Docker engine says: " + line(e.message) }

// inspect returns an image's ID.
func (e *engine) inspect(ctx context.Context, image string) (v1.Hash, error) {
	resp, err := e.do(ctx, http.MethodGet, "/images/"+image+"/json", nil)
	if err != nil {
		return v1.Hash{}, err
	}
	defer resp.Body.Close()
	var answer struct{ ID v1.Hash }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return v1.Hash{}, fmt.Errorf("the Docker engine's answer is not valid: %w", err)
	}
	return answer.ID, nil
}

// engineName is what an engine calls the image.
func (r Reference) engineName() string {
	if r.named == nil {
		return r.digest.String()
	}
	return familiar(r.named.Name())
}

// save writes an image to a temporary file.
func (e *engine) save(ctx context.Context, r Reference) (*archive, error) {
	resp, err := e.do(ctx, http.MethodGet, "/images/"+r.engineName()+"/get", nil)
	if answer, ok := errors.AsType[*engineError](err); ok && answer.status == http.StatusNotFound {
		return nil, &hintError{fmt.Errorf("the Docker engine has no image %s", r.engineName()), "docker images lists those it has"}
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	f, err := spool(ctx, resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading from the Docker engine: %w", err)
	}
	return newArchive(f, true)
}

// load is Write to an engine.
func (c *Client) load(ctx context.Context, dst Reference, src *Source, t Tree) (Report, error) {
	if dst.Tag() == "" {
		return Report{}, errors.New("an image cannot be given its ID or digest, only a tag")
	}
	e, err := c.dial(ctx)
	if err != nil {
		return Report{}, err
	}
	d, err := dockerize(ctx, dst, src, t)
	if err != nil {
		return Report{}, err
	}
	defer d.close()
	if id, err := e.inspect(ctx, dst.engineName()); err == nil && id == d.config {
		return Report{Digest: d.config, UpToDate: true}, nil
	}
	lowest := e.lowest(ctx, d, src, t)
	report, err := e.load(ctx, d, lowest)
	if _, refused := errors.AsType[*engineError](err); refused && len(lowest) > 0 {
		report, err = e.load(ctx, d, nil)
	}
	return report, err
}

// lowest returns the files of the lowest layers, if they are those of an image
// that this engine has: it does not look for them in the archive then. An engine
// that keeps images as containerd does, whose IDs are not the digests of their
// configs, would take an image without layers.
func (e *engine) lowest(ctx context.Context, d *dockerContent, src *Source, t Tree) map[string]bool {
	if src == nil {
		return nil
	}
	a, ok := src.store.(*dockerArchive)
	if !ok || a.engine == nil || a.engine.host != e.host {
		return nil
	}
	var from, to v1.Manifest
	if err := errors.Join(json.Unmarshal(src.Root.Raw, &from), json.Unmarshal(t.Root.Raw, &to)); err != nil {
		return nil
	}
	if id, err := e.inspect(ctx, from.Config.Digest.String()); err != nil || id != from.Config.Digest {
		return nil
	}
	lower := make(map[string]bool)
	for i := range min(len(from.Layers), len(to.Layers)) {
		if from.Layers[i].Digest != to.Layers[i].Digest {
			break
		}
		lower[d.image.Layers[i]] = true
	}
	return lower
}

// load sends the engine the image, without the given files.
func (e *engine) load(ctx context.Context, d *dockerContent, without map[string]bool) (Report, error) {
	manifest, err := json.Marshal([]dockerImage{d.image})
	if err != nil {
		return Report{}, err
	}
	report := Report{Digest: d.config}
	list := []tarFile{bytesFile(dockerManifest, manifest)}
	for _, f := range sorted(d.files) {
		if without[f.name] {
			report.Existing.add(f.size)
			continue
		}
		report.Uploaded.add(f.size)
		list = append(list, f)
	}
	return report, e.send(ctx, d, list)
}

// send sends the engine the files of an archive with the image.
func (e *engine) send(ctx context.Context, d *dockerContent, list []tarFile) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeTar(ctx, w, list)
		w.CloseWithError(err)
		written <- err
	}()
	resp, err := e.do(ctx, http.MethodPost, "/images/load?quiet=1", r)
	r.Close() // the engine may have answered before the end
	failure := <-written
	if err == nil {
		defer resp.Body.Close()
		err = loaded(resp.Body)
	} else if failure != nil && !errors.Is(failure, io.ErrClosedPipe) {
		return failure // rather than what became of it
	}
	if _, answered := errors.AsType[*engineError](err); err == nil || answered || failure != nil {
		return err
	}
	// The engine has it all, and did not say how it went.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if id, err := e.inspect(ctx, d.image.RepoTags[0]); err == nil && id == d.config {
		return nil
	}
	return &outcomeError{err, maybeTag}
}

// loaded reads the answer of an engine that was sent an image.
func loaded(r io.Reader) error {
	for d := json.NewDecoder(r); ; {
		var message struct{ Error string }
		switch err := d.Decode(&message); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading the Docker engine's answer: %w", err)
		case message.Error != "":
			return &engineError{http.StatusOK, message.Error}
		}
	}
}
