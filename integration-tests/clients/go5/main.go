// Runs the official Go 5.x client through its paces against whatever serves at the given endpoints.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-clients/golang/v5"
)

type testCase struct {
	name string
	body func(*stage)
}

func main() {
	endpoints := flag.String("endpoints", "", "where the proxy is")
	name := flag.String("run", "", "what the topics and groups of this run are called by")
	tls := flag.Bool("tls", false, "over TLS")
	only := flag.String("only", "", "names of the cases to run, separated by commas")
	jobs := flag.Int("jobs", 16, "cases that run at the same time")
	list := flag.Bool("list", false, "print the names of the cases")
	flag.Parse()
	// The longest waits come first, so that the short cases run beside them.
	cases := slices.Concat(timeCases, simpleCases, pushCases, sendCases)
	if *list {
		for _, each := range cases {
			fmt.Println(each.name)
		}
		return
	}
	if *only != "" {
		names := strings.Split(*only, ",")
		cases = slices.DeleteFunc(cases, func(each testCase) bool { return !slices.Contains(names, each.name) })
		if len(cases) != len(names) {
			fmt.Fprintln(os.Stderr, "--only names a case that does not exist")
			os.Exit(2)
		}
	}
	if *endpoints == "" || *name == "" {
		fmt.Fprintln(os.Stderr, "--endpoints or --run is missing")
		os.Exit(2)
	}
	os.Setenv("rocketmq.client.logLevel", "error")
	rmq.ResetLogger()
	rmq.EnableSsl = *tls
	if !run(cases, *endpoints, *name, *jobs) {
		os.Exit(1)
	}
}

func run(cases []testCase, endpoints, name string, jobs int) bool {
	var printing sync.Mutex
	var wait sync.WaitGroup
	failed := 0
	free := make(chan struct{}, jobs)
	for _, each := range cases {
		free <- struct{}{}
		wait.Go(func() {
			start := time.Now()
			problem := attempt(each, newStage(each.name, endpoints, name))
			<-free
			printing.Lock()
			defer printing.Unlock()
			if problem == "" {
				fmt.Printf("PASS %s %.1fs\n", each.name, time.Since(start).Seconds())
			} else {
				failed++
				fmt.Printf("FAIL %s: %s, after %.1fs\n", each.name, problem, time.Since(start).Seconds())
			}
		})
	}
	wait.Wait()
	fmt.Printf("%d passed, %d failed\n", len(cases)-failed, failed)
	return failed == 0
}

// The reason of the failure on one line, or nothing.
func attempt(each testCase, s *stage) (problem string) {
	defer s.close()
	defer func() {
		if thrown := recover(); thrown != nil {
			problem = strings.ReplaceAll(fmt.Sprint(thrown), "\n", " ") + whereFailed()
		}
	}()
	each.body(s)
	return ""
}

// The line of the case that did not hold: the first caller outside of the files of demands and stages.
func whereFailed() string {
	callers := make([]uintptr, 50)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	for {
		frame, more := frames.Next()
		file := filepath.Base(frame.File)
		if strings.HasSuffix(file, "_cases.go") {
			return fmt.Sprintf(" (%s:%d)", file, frame.Line)
		}
		if !more {
			return ""
		}
	}
}
