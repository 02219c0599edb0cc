package scan

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// manyFiles streams a layer of n files in directories of a hundred, compressed
// with gzip at the level given.
func manyFiles(n, level int) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		z, _ := gzip.NewWriterLevel(w, level)
		t := tar.NewWriter(z)
		for i := range n {
			if i%100 == 0 {
				t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/lib/node_modules/package%04d/lib/", i/100), Mode: 0o755})
			}
			t.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/lib/node_modules/package%04d/lib/some-module-%06d.js", i/100, i), Mode: 0o644, Size: 3, ModTime: time.Unix(int64(i), 0)})
			io.WriteString(t, "abc")
		}
		t.Close()
		z.Close()
		w.Close()
	}()
	return r
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemory holds the index of a layer with half a million files to what fits
// a process of 64 MiB: 72 bytes for a file whose name has 22, merged.
func TestMemory(t *testing.T) {
	const files = 500_000
	before := heap()
	r := manyFiles(files, gzip.NoCompression)
	defer r.Close()
	l, err := Read(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	ix := Merge(l)
	perFile := float64(heap()-before) / files
	t.Logf("%.1f bytes a file", perFile)
	if perFile > 72 {
		t.Errorf("%.1f bytes a file", perFile)
	}
	runtime.KeepAlive(ix)
}

func BenchmarkRead(b *testing.B) {
	const files = 20_000
	b.ReportAllocs()
	for b.Loop() {
		r := manyFiles(files, gzip.BestSpeed)
		if _, err := Read(context.Background(), r); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
}

func BenchmarkMerge(b *testing.B) {
	l := readMany(b)
	b.ReportAllocs()
	for b.Loop() {
		Merge(l, l)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*l.entries.n), "ns/file")
}

// BenchmarkEncode and BenchmarkDecode are what keeping a layer's index costs
// when it was read, and what it takes in place of reading the layer.
func BenchmarkEncode(b *testing.B) {
	l := readMany(b)
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		size = len(encoded(b, l))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(l.entries.n), "ns/file")
	b.ReportMetric(float64(size)/float64(l.entries.n), "bytes/file")
}

func BenchmarkDecode(b *testing.B) {
	l := readMany(b)
	entry := encoded(b, l)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(bytes.NewReader(entry)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(l.entries.n), "ns/file")
}

// readMany is the index of a layer with 20,000 files.
func readMany(b *testing.B) *Layer {
	r := manyFiles(20_000, gzip.BestSpeed)
	defer r.Close()
	l, err := Read(context.Background(), r)
	if err != nil {
		b.Fatal(err)
	}
	return l
}
