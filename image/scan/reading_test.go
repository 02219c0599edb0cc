package scan

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// With nothing put into the cache, only those that ask at once share what is read.
func TestCacheReadOnce(t *testing.T) {
	c := &Cache{Dir: t.TempDir()}
	digest := digestOf(1)
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		layers := make([]*Layer, 10)
		var wg sync.WaitGroup
		for i := range layers {
			wg.Go(func() {
				var err error
				layers[i], err = c.Read(t.Context(), digest, 2, func() (*Layer, error) {
					reads.Add(1)
					time.Sleep(time.Second)
					return &Layer{}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, l := range layers {
			if l == nil || l != layers[0] {
				t.Errorf("got %p and %p", l, layers[0])
			}
		}
		if n := reads.Load(); n != 1 {
			t.Errorf("read %d times", n)
		}
	})
	if len(c.reading.layers) > 0 {
		t.Error("it is held longer than needed")
	}
}

func TestCacheReadAfterPut(t *testing.T) {
	c := &Cache{Dir: t.TempDir(), MaxBytes: 1 << 20}
	l, err := Read(t.Context(), bytes.NewReader(fixture(t)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := c.Read(t.Context(), digestOf(1), 1, func() (*Layer, error) {
			_, there := c.Get(digestOf(1))
			if there {
				t.Error("it is read again")
			}
			return l, c.Put(digestOf(1), l)
		})
		if err != nil || string(encoded(t, got)) != string(encoded(t, l)) {
			t.Errorf("another layer, %v", err)
		}
	}
}

// If who reads fails or gives up, one of those that wait goes on.
func TestCacheReadTakenOver(t *testing.T) {
	failed := errors.New("failed")
	for _, tt := range []struct {
		name  string
		first func(ctx context.Context) (*Layer, error)
		want  error
	}{
		{"fails", func(context.Context) (*Layer, error) { time.Sleep(time.Second); return nil, failed }, failed},
		{"gives up", func(ctx context.Context) (*Layer, error) { <-ctx.Done(); return nil, ctx.Err() }, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Cache{Dir: t.TempDir()}
			synctest.Test(t, func(t *testing.T) {
				digest := digestOf(1)
				limited, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() {
					if _, err := c.Read(limited, digest, 1, func() (*Layer, error) { return tt.first(limited) }); !errors.Is(err, tt.want) {
						t.Errorf("got %v, want %v", err, tt.want)
					}
				})
				synctest.Wait()
				var reads atomic.Int32
				for range 5 {
					wg.Go(func() {
						l, err := c.Read(t.Context(), digest, 1, func() (*Layer, error) {
							reads.Add(1)
							time.Sleep(time.Second)
							return &Layer{}, nil
						})
						if l == nil || err != nil {
							t.Errorf("got %p, %v", l, err)
						}
					})
				}
				// Who only waits can give up, too.
				impatient, stop := context.WithTimeout(t.Context(), time.Second/2)
				defer stop()
				wg.Go(func() {
					if _, err := c.Read(impatient, digest, 1, nil); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v", err)
					}
				})
				wg.Wait()
				if n := reads.Load(); n != 1 {
					t.Errorf("read %d times", n)
				}
			})
		})
	}
}

func TestCacheReadAtOnce(t *testing.T) {
	c := &Cache{Dir: t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		var wg sync.WaitGroup
		begun := time.Now()
		for i := range 9 {
			wg.Go(func() {
				if _, err := c.Read(t.Context(), digestOf(i), 3, func() (*Layer, error) {
					most.Store(max(most.Load(), now.Add(1)))
					time.Sleep(time.Second)
					now.Add(-1)
					return &Layer{}, nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		waiting, stop := context.WithCancel(t.Context())
		stop()
		if _, err := c.Read(waiting, digestOf(100), 3, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		wg.Wait()
		if most.Load() != 3 || time.Since(begun) != 3*time.Second {
			t.Errorf("%d at once, in %s", most.Load(), time.Since(begun))
		}
	})
}

func TestNilCacheRead(t *testing.T) {
	var c *Cache
	l, err := c.Read(t.Context(), digestOf(1), 1, func() (*Layer, error) { return &Layer{}, nil })
	if l == nil || err != nil {
		t.Errorf("got %p, %v", l, err)
	}
}
