// Checks that count, and the list of tests.

#ifndef COSETQ_TEST_CHECK_H_
#define COSETQ_TEST_CHECK_H_

#include <cstdio>
#include <string>

namespace cosetq::test {

long& Passed();
long& Failed();

// Counts a check and reports it when it fails. Returns ok.
bool Check(bool ok, const std::string& what);

void TestHalf();
void TestDispatch();
void TestHostileWeights();
void TestPaths();
void TestLinear(bool brief);
void TestAccuracy();
void TestManyRows();
void TestObserve();
void TestEncode();
void TestProduct();

}  // namespace cosetq::test

#endif  // COSETQ_TEST_CHECK_H_
