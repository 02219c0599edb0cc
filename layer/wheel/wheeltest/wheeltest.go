// Package wheeltest makes wheels, good and bad ones, and serves them as a
// package index does, so that tests need neither files nor a network.
package wheeltest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

// Entry is one entry of a wheel. Most need only a name and content.
type Entry struct {
	Name    string
	Content string
	// Edit changes the header before it is written.
	Edit func(*zip.FileHeader)
}

// Make returns a wheel with the entries. METADATA and WHEEL are added unless
// they are among the entries, and so is a RECORD that lists the rest.
func Make(name, version string, entries ...Entry) []byte {
	info := name + "-" + version + ".dist-info/"
	add := func(file, content string) {
		if !slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == info+file }) {
			entries = append(entries, Entry{Name: info + file, Content: content})
		}
	}
	add("METADATA", Metadata(name, version))
	add("WHEEL", "Wheel-Version: 1.0\nGenerator: wheeltest\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
	add("RECORD", Record(entries)+info+"RECORD,,\n")
	return Zip(entries...)
}

// Metadata returns a METADATA file with further header lines.
func Metadata(name, version string, lines ...string) string {
	head := append([]string{"Metadata-Version: 2.1", "Name: " + name, "Version: " + version}, lines...)
	return strings.Join(head, "\n") + "\n\nA description.\n"
}

// Record returns the lines of RECORD for the entries.
func Record(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		if strings.HasSuffix(e.Name, "/") {
			continue
		}
		sum := sha256.Sum256([]byte(e.Content))
		fmt.Fprintf(&b, "%s,sha256=%s,%d\n", e.Name, base64.RawURLEncoding.EncodeToString(sum[:]), len(e.Content))
	}
	return b.String()
}

// Zip returns an archive of the entries as they are.
func Zip(entries ...Entry) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.Name, Method: zip.Deflate}
		if e.Edit != nil {
			e.Edit(h)
		}
		w, err := z.CreateHeader(h)
		if err == nil && e.Content != "" {
			_, err = w.Write([]byte(e.Content))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// SHA256 returns a digest in hexadecimal.
func SHA256(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Index is a package index with the simple repository API below "/simple/".
// The key of a wheel is its file name.
type Index struct {
	Wheels map[string][]byte
	// HTML says that it is an old one that has no JSON form.
	HTML bool
}

// ServeHTTP implements [http.Handler].
func (x *Index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if content, ok := x.Wheels[strings.TrimPrefix(r.URL.Path, "/files/")]; ok {
		w.Write(content)
		return
	}
	project, ok := strings.CutPrefix(r.URL.Path, "/simple/")
	project, slash := strings.CutSuffix(project, "/")
	var files []string
	for _, file := range slices.Sorted(maps.Keys(x.Wheels)) {
		name, _, _ := strings.Cut(file, "-")
		if pep508.Normalize(name) == project {
			files = append(files, file)
		}
	}
	if !ok || !slash || files == nil {
		http.NotFound(w, r)
		return
	}
	if x.HTML {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!DOCTYPE html><html><head><title>%s</title></head><body>\n", html.EscapeString(project))
		for _, file := range files {
			fmt.Fprintf(w, "<a href=\"../../files/%s#sha256=%s\">%s</a><br>\n", file, SHA256(x.Wheels[file]), html.EscapeString(file))
		}
		return
	}
	type entry struct {
		Filename string            `json:"filename"`
		URL      string            `json:"url"`
		Hashes   map[string]string `json:"hashes"`
	}
	page := struct {
		Meta  map[string]string `json:"meta"`
		Name  string            `json:"name"`
		Files []entry           `json:"files"`
	}{Meta: map[string]string{"api-version": "1.0"}, Name: project}
	for _, file := range files {
		page.Files = append(page.Files, entry{file, "../../files/" + file, map[string]string{"sha256": SHA256(x.Wheels[file])}})
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	json.NewEncoder(w).Encode(page)
}
