// Package browser runs pages in headless Chromium for tests.
package browser

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/cosetq/cosetq/internal/testenv"
)

// Page is a tab.
type Page struct {
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// Open starts Chromium with a profile of its own and opens a page of the given width in pixels; it skips the test where there
// is no Chromium. Everything ends with the test.
func Open(t testing.TB, url string, width int64, dark bool) *Page {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(testenv.Chromium(t)), chromedp.UserDataDir(profile(t)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(time.Minute))
	if dark {
		options = append(options, chromedp.Flag("blink-settings", "preferredColorScheme=0"))
	}
	ctx, stopBrowser := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stopBrowser)
	ctx, stopTab := chromedp.NewContext(ctx)
	t.Cleanup(stopTab)
	ctx, stopWaiting := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(func() {
		// Asked first: a browser that is killed leaves its temporary files.
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("Chromium is killed, as it does not close: %v", err)
		}
		stopWaiting()
	})
	p := &Page{ctx: ctx}
	chromedp.ListenTarget(ctx, p.listen)
	if err := chromedp.Run(ctx, log.Enable(), chromedp.EmulateViewport(width, 800), chromedp.Navigate(url)); err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	return p
}

// profile makes a folder that is removed with the test. Chromium's processes outlive the one that is waited for by some
// milliseconds and write to it until then, so that a single attempt to remove it can find a file that has just come.
func profile(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cosetq-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		deadline := time.Now().Add(30 * time.Second)
		for err := os.RemoveAll(dir); err != nil; err = os.RemoveAll(dir) {
			if time.Now().After(deadline) {
				t.Errorf("Chromium has ended, and its profile still cannot be removed: %v", err)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	return dir
}

func (p *Page) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			p.problems = append(p.problems, fmt.Sprintf("%s %s", e.Entry.Text, e.Entry.URL))
		}
	}
}

// Problems lists the errors and warnings of the console so far.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problems
}

// Eval evaluates an expression, waiting for a promise, and decodes its value.
func (p *Page) Eval(t testing.TB, expression string, value any) {
	t.Helper()
	await := func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }
	if err := chromedp.Run(p.ctx, chromedp.Evaluate(expression, value, await)); err != nil {
		t.Fatalf("evaluate %s: %v", expression, err)
	}
}

// Press presses a key n times.
func (p *Page) Press(t testing.TB, key string, n int) {
	t.Helper()
	for range n {
		if err := chromedp.Run(p.ctx, chromedp.KeyEvent(key)); err != nil {
			t.Fatal(err)
		}
	}
}

// Screenshot returns the whole page as PNG.
func (p *Page) Screenshot(t testing.TB) []byte {
	t.Helper()
	var picture []byte
	if err := chromedp.Run(p.ctx, chromedp.FullScreenshot(&picture, 100)); err != nil {
		t.Fatal(err)
	}
	return picture
}
